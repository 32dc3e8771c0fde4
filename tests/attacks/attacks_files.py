"""Rows of bad input: output folders that are inputs, in use, or not ours."""

from __future__ import annotations

from attack import Attack, World


def foreign(world: World) -> None:
    (world.folder / "mine").mkdir()
    (world.folder / "mine" / "notes.txt").write_text("dear diary")


OUT = "Output folders"

ATTACKS: list[Attack] = [
    Attack(
        OUT,
        "coprune prune --model base --data npz:digits.npz --keep-macs 0.5 --out mine --overwrite",
        "coprune: mine: is not a run folder, --overwrite leaves it alone; remove it yourself",
        makes=foreign,
    ),
]
