"""``docs/errors.md`` from the rows that the tests run: ``make errors-table``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from attack import Attack, every_attack

HEAD = """# What goes wrong, and the line it gets

Whatever can be mended by who typed it ends as one line on standard error with exit code 2, or as a
`coprune.UserError` in Python: cause first, then the way out. Nothing is left half-written. Every row below
is a test (`tests/attacks/`), and this page is made from them by `make errors-table`; `…` stands for what
varies. `base` is the run folder of a small ResNet-20, `run` one of `coprune prune`, `net` and `pruned` the
networks in them, `batches` and `test` lists of (images, labels).
"""


def _cell(text: str) -> str:
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


def rendered(attacks: Sequence[Attack]) -> str:
    """The page, as Markdown."""
    kinds = dict.fromkeys(attack.kind for attack in attacks)
    parts = [HEAD]
    for kind in kinds:
        rows = [a for a in attacks if a.kind == kind]
        lines = [f"| {_cell(a.shown or a.given)} | {_cell(a.line)} |" for a in rows]
        parts.append("\n".join([f"## {kind}\n", "| given | said |", "|---|---|", *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "errors.md"
    page.write_text(rendered(every_attack()))
    sys.stdout.write(f"{page}\n")
