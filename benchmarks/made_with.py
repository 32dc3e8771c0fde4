"""What a result was made with: a digest of the code of every room, and of the weights of the networks in it.

Results are written with it, and ``make bench-stale`` compares:

python benchmarks/made_with.py RESULT.json OUT.json     # a result of ``coprune run``, kept among the results
python benchmarks/made_with.py                          # lists results that are older than what they measure
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from coprune.files import write_json

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/coprune"
RESULTS = ROOT / "benchmarks/results"
KEY = "made_with"

APART = {"cli", "report", "export", "compat", "distributed", "models", "store", "data"}
"""Rooms that decide no figure."""

SHARED = ("layers.py", "memory.py", "seeding.py", "task.py")
"""Files outside of rooms that decide figures; one more room."""

CHOICE = {"budget", "clustering", "groups", "methods", "pipeline", "recovery", "shared", "statistics"}
CHOICE |= {"surgery", "tasks", "tracing"}
ROOMS: Mapping[str, set[str]] = {
    "latency": {"measure"},
    "max_drop": CHOICE | {"measure"},
    "judged": CHOICE | {"measure", "training"},
    "networks": CHOICE | {"training"},
    "reconstruction": CHOICE | {"training"},
    "training": CHOICE | {"training"},
    "text": CHOICE | {"training"},
    "tasks": CHOICE | {"measure", "training"},
}
"""A result's name, or its first word → the rooms that it measures; :data:`CHOICE` of others."""


@cache
def digests() -> dict[str, str]:
    """Room → digest of its code. Comments, docstrings and the way it is laid out do not count."""
    rooms = {p.name: sorted(p.rglob("*.py")) for p in SOURCE.iterdir() if p.is_dir() and p.name not in APART}
    rooms["shared"] = [SOURCE / name for name in SHARED if (SOURCE / name).is_file()]
    found = {}
    for room, files in sorted(rooms.items()):
        if files:
            at = SOURCE if room == "shared" else SOURCE / room
            code = "".join(f"{file.relative_to(at)}\n{_code(file.read_text())}\n" for file in files)
            found[room] = _short(code.encode())
    return found


def _code(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring, or says what the line before it means."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def weights(document: Any) -> dict[str, str]:
    """Networks that a result names → digest of their weights, of those that are there as files."""
    found = {}
    for name in sorted(set(_texts(document))):
        folder = (
            SOURCE / "models/bundled" / name.removeprefix("coprune:") if "coprune:" in name else ROOT / name
        )
        file = folder / "model.safetensors"
        if name and len(name) < 200 and "\n" not in name and file.is_file():
            found[name] = _short(file.read_bytes())
    return found


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for key, value in document.items():
            yield from (key, *_texts(value))
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)


def stamped(document: Mapping[str, Any], *, since: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A result with what it was made with.

    Args:
        document: the result.
        since: an earlier one of which parts are still in it: it is as old as these.
    """
    now = {"code": digests(), "weights": weights(document)}
    return {**document, KEY: now if not since else since.get(KEY, {"code": {}, "weights": {}})}


def write(path: Path, document: Mapping[str, Any], *, since: Mapping[str, Any] | None = None) -> None:
    """Write a result with what it was made with; see :func:`stamped`."""
    write_json(path, stamped(document, since=since))


def stale(name: str, document: Mapping[str, Any]) -> str | None:
    """What has changed since a result was made, in words; None where nothing has.

    Args:
        name: of the result.
        document: what is written there.
    """
    made = document.get(KEY)
    if made is None:
        return "made before results said what with"
    rooms = ROOMS.get(name, ROOMS.get(name.split("_")[0], CHOICE))
    now = digests()
    changed = sorted(room for room in rooms if made["code"].get(room) != now.get(room))
    known = weights(document)
    others = sorted(base for base, digest in made["weights"].items() if known.get(base, digest) != digest)
    parts = [("code changed in", changed), ("other weights of", others)]
    return "; ".join(f"{words} {', '.join(which)}" for words, which in parts if which) or None


def listed(folder: Path | None = None) -> list[str]:
    """A line for every result, or task in it, that is older than what it measures."""
    lines = []
    for file in sorted((folder or RESULTS).glob("*.json")):
        document = json.loads(file.read_text())
        parts = document.get("tasks", {"": document}) if isinstance(document, dict) else {}
        for part, content in parts.items():
            why = stale(file.stem, content)
            if why:
                lines.append(f"{file.stem}{f' {part}' if part else ''}: {why}")
    return lines


def main() -> None:
    if len(sys.argv) == 3:
        source, out = map(Path, sys.argv[1:])
        write(out, json.loads(source.read_text()))
        return
    lines = listed()
    print("\n".join(lines) or "no result is older than the code that it measures")
    if lines:
        print(f"warning: {len(lines)} results are older than what they measure", file=sys.stderr)


if __name__ == "__main__":
    main()
