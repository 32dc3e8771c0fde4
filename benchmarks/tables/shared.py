"""What all tables have in common."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


RESULTS = ROOT / "benchmarks" / "results"


def there(name: str) -> bool:
    """Whether something was measured."""
    return (RESULTS / f"{name}.json").is_file()


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def versions(content: dict) -> str:
    named = ", ".join(f"{k} {v}" for k, v in content["versions"].items())
    return f"\n\n<sub>{named}</sub>"


def named(choice: str) -> str:
    """A choice of units in a table; ours stands out."""
    return f"**`{choice}`**" if choice == "complementary" else f"`{choice}`"


def points(stage: tuple[float, float] | None, *, seeds: int = 3) -> str:
    """Mean and spread in per cent; one seed has no spread."""
    if not stage:
        return "–"
    return f"{100 * stage[0]:.2f}" + (f" ± {100 * stage[1]:.2f}" if seeds > 1 else "")
