"""Milliseconds of pruned networks against what their MACs promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from tables.shared import load, table, versions


def latency(name: str) -> Callable[[], str]:
    """A row a network, budget and rounding; a column an engine and batch size."""
    return lambda: _rendered(load(name))


def _rendered(content: dict) -> str:
    cases: dict[tuple, dict[tuple, dict]] = {}
    for row in content["rows"]:
        case = (PurePath(row["model"]).name, row["keep"], row["round_to"])
        cases.setdefault(case, {})[row["engine"], row["batch"]] = row
    measured = sorted(
        {place for found in cases.values() for place in found}, key=lambda p: (p[0] != "torch", p)
    )
    lines = []
    for (model, keep, round_to), found in cases.items():
        first = next(iter(found.values()))
        lines.append(
            [
                f"`{model}`",
                f"{100 * keep:.0f} %",
                str(round_to) if round_to > 1 else "any",
                f"{100 * first['macs']:.1f} %",
                f"{first['lost']:.2f}",
                *(f"{found[p]['ratio']:.2f}× ({found[p]['of_promise']:.2f})" for p in measured),
            ]
        )
    names = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
    head = ["network", "asked", "channels in multiples of", "MACs", "points lost"]
    head += [f"{names[engine]}, batch {batch}" for engine, batch in measured]
    note = (
        f"\n\nHow many times as fast as the unpruned network, in brackets that over what the MACs promise "
        f"(1 / their share); medians of pairs run in turn, {content['threads']} thread. `{content['data']}`, "
        f"{content['calibration']:,} calibration samples, one seed, least squares, no training."
        + (f" {content['remark']}" if content["remark"] else "")
    )
    for r in content["refused"]:
        name = PurePath(r["model"]).name
        note += f"\n\n`{name}`, {100 * r['keep']:.0f} %, multiples of {r['round_to']}: {r['why']}."
    return table(head, lines) + note + versions(content)
