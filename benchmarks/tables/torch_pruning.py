"""Torch-Pruning's pruners as their authors ship them, beside ours."""

from __future__ import annotations

from typing import Any

from coprune.report.summary import mean_and_std
from tables.shared import load, named, points, table, versions

RECOVERIES = {"none": "as cut", "bn": "+ batch norm", "least-squares": "+ least squares"}


def torch_pruning() -> str:
    """A row a budget and pipeline, with every recovery; trained too, where that was measured."""
    content = load("torch_pruning")
    found: dict[tuple[float, str], dict[str, list[float]]] = {}
    macs: dict[tuple[float, str], list[float]] = {}
    for row in content["rows"]:
        key = row["budget"], row["pipeline"]
        cells: dict[str, Any] = found.setdefault(key, {})
        cells.setdefault(row["recovery"], []).append(row["value"])
        macs.setdefault(key, []).append(row["macs_ratio"])
        if "trained" in row:
            cells.setdefault(f"{row['recovery']}, trained", []).append(row["trained"])
    told = dict(RECOVERIES)
    if content["rates"]:
        told |= {f"{how}, trained": f"{head}, trained" for how, head in RECOVERIES.items()}
    solved = {key: mean_and_std(cells["least-squares"]) or (0.0, 0.0) for key, cells in found.items()}
    seeds = content["seeds"]
    lines = [
        [
            f"{100 * key[0]:.0f} %",
            f"{100 * sum(macs[key]) / len(macs[key]):.1f} %",
            named(key[1]),
            *(points(mean_and_std(found[key].get(how, [])), seeds=seeds) for how in told),
        ]
        for key in sorted(found, key=lambda key: (-key[0], -solved[key][0]))
    ]
    said = (
        f"\n\n`{content['model']}` on `{content['data']}`, base {100 * content['base']:.2f} %; "
        f"{content['calibration']:,} calibration images; seeds: {seeds}; top-1 in per cent. Pruners of "
        "Torch-Pruning with their defaults and L2 importance, channels of residual sums too, the classifier "
        "whole, stepped down to the budget; `GroupNormPruner` after an epoch of its regularised training on "
        f"{content['images']:,} images."
    )
    if content["rates"]:
        rates = ", ".join(f"{rate:g}" for rate in content["rates"])
        said += (
            f" *Trained*: an epoch of SGD on {content['images']:,} images, distillation weight 0.9, the best "
            f"of the rates {rates} on calibration images."
        )
    return table(["budget", "MACs", "pipeline", *told.values()], lines) + said + versions(content)
