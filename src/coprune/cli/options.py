"""Options that several subcommands share, so that each has one name, one help text, one default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Model = Annotated[
    str, typer.Option(help="coprune:NET, coprune:NET@DATA, python:module:factory or a run folder")
]
Data = Annotated[str, typer.Option(help="fashion-mnist[:ROOT], fashion-mnist-sample or npz:FILE")]
Out = Annotated[Path, typer.Option(help="Folder to write; must not exist unless --resume or --overwrite.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]
Weights = Annotated[Optional[Path], typer.Option(help="safetensors, or a .pt/.pth state dict")]
InChannels = Annotated[
    Optional[int], typer.Option(help="Image channels; taken from the data if not given.", min=1)
]
NumClasses = Annotated[Optional[int], typer.Option(help="Classes; taken from the data if not given.", min=1)]
Width = Annotated[Optional[int], typer.Option(help="Channels of the first stage.", min=1)]
Calibration = Annotated[int, typer.Option(help="Samples set aside for statistics and decisions.", min=0)]
Threads = Annotated[Optional[int], typer.Option(help="CPU threads; all by default.", min=1)]
