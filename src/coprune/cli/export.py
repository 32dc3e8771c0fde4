"""``coprune export``: the model of a run for other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coprune.cli import options as o


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX, with a free batch size.")] = False,
    torch_export: Annotated[
        bool, typer.Option("--torch-export", help="Write a program of torch.export (.pt2).")
    ] = False,
    out: Annotated[
        Optional[Path], typer.Option(help="File to write; RUN/model.onnx or RUN/model.pt2 by default.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="Compare on this data's held-out part; the run's own by default.")
    ] = "",
    input_shape: Annotated[
        str, typer.Option(help="Of one image, e.g. 1,28,28: compare on noise instead.")
    ] = "",
    threads: o.Threads = None,
    trust: o.Trust = False,
) -> None:
    """Write the model of a run as ONNX or for torch.export, and check that it says the same."""
    from coprune.bounds import Length, Threads
    from coprune.cli.parsing import checked, numbers
    from coprune.cli.terminal import say
    from coprune.errors import UserError
    from coprune.export import FORMATS
    from coprune.pipeline.environment import set_up
    from coprune.pipeline.export import export_run

    kinds = [kind for kind, asked in (("onnx", onnx), ("torch-export", torch_export)) if asked]
    if not kinds:
        raise UserError("export to what? give --onnx, --torch-export or both")
    if out is not None and len(kinds) > 1:
        raise UserError("--out names one file; give --onnx or --torch-export, not both")
    set_up(threads=checked(Threads | None, threads, name="threads"), seed=0)
    lines = export_run(
        run,
        targets={kind: out or run / f"model{FORMATS[kind].suffix}" for kind in kinds},
        data=data or None,
        shape=numbers(input_shape, name="input_shape", kind=Length),
        trust=trust,
    )
    for line in lines:
        say(line)
