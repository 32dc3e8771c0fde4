"""``coprune export``: the model of a run for other engines."""

from __future__ import annotations

from pathlib import Path

from coprune.bounds import Length
from coprune.cli.command import Run
from coprune.cli.terminal import say
from coprune.errors import UserError
from coprune.pipeline.settings import Threading, Trust


class Exporting(Threading, Trust):
    """What is written, and what it is compared on.

    Attributes:
        onnx: write ONNX, with a free batch size.
        torch_export: write a program of torch.export (.pt2).
        out: file to write; RUN/model.onnx or RUN/model.pt2 by default.
        data: compare on this data's held-out part; the run's own by default.
        input_shape: of one image, e.g. 1,28,28: compare on noise instead.
    """

    onnx: bool = False
    torch_export: bool = False
    out: Path | None = None
    data: str | None = None
    input_shape: tuple[Length, ...] = ()


def export(run: Run, asked: Exporting) -> None:
    """Write the model of a run as ONNX or for torch.export, and check that it says the same."""
    kinds = [kind for kind, wanted in (("onnx", asked.onnx), ("torch-export", asked.torch_export)) if wanted]
    if not kinds:
        raise UserError("export to what? give --onnx, --torch-export or both")
    if asked.out is not None and len(kinds) > 1:
        raise UserError("--out names one file; give --onnx or --torch-export, not both")
    from coprune.export import FORMATS
    from coprune.pipeline.environment import set_up
    from coprune.pipeline.export import export_run

    set_up(threads=asked.threads, seed=0)
    targets = {kind: asked.out or run / f"model{FORMATS[kind].suffix}" for kind in kinds}
    shape, trust = asked.input_shape, asked.trust
    for line in export_run(run, targets=targets, data=asked.data or None, shape=shape, trust=trust):
        say(line)
