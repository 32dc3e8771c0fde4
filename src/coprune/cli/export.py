"""``coprune export``: the model of a run for other engines."""

from __future__ import annotations

from pydantic import Field

from coprune.bounds import Length
from coprune.cli.command import Run
from coprune.cli.terminal import say
from coprune.errors import UserError
from coprune.options import PATH
from coprune.pipeline.settings import Threading, Trust


class Exporting(Threading, Trust):
    """What is written, and what it is compared on."""

    onnx: bool = Field(False, description="Write ONNX, with a free batch size.")
    torch_export: bool = Field(False, description="Write a program of torch.export (.pt2).")
    out: str | None = Field(
        None,
        description="File to write; RUN/model.onnx or RUN/model.pt2 by default.",
        json_schema_extra=PATH,
    )
    data: str | None = Field(
        None, description="Compare on this data's held-out part; the run's own by default."
    )
    input_shape: tuple[Length, ...] = Field(
        (), description="Of one image, e.g. 1,28,28: compare on noise instead."
    )


def export(run: Run, asked: Exporting) -> None:
    """Write the model of a run as ONNX or for torch.export, and check that it says the same."""
    kinds = [kind for kind, wanted in (("onnx", asked.onnx), ("torch-export", asked.torch_export)) if wanted]
    if not kinds:
        raise UserError("export to what? give --onnx, --torch-export or both")
    if asked.out is not None and len(kinds) > 1:
        raise UserError("--out names one file; give --onnx or --torch-export, not both")
    from pathlib import Path

    from coprune.export import FORMATS
    from coprune.pipeline.environment import set_up
    from coprune.pipeline.export import export_run

    set_up(threads=asked.threads, seed=0)
    out = Path(asked.out) if asked.out else None
    lines = export_run(
        run,
        targets={kind: out or run / f"model{FORMATS[kind].suffix}" for kind in kinds},
        data=asked.data or None,
        shape=asked.input_shape,
        trust=asked.trust,
    )
    for line in lines:
        say(line)
