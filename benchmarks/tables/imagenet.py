"""A network with its ImageNet weights, without training."""

from __future__ import annotations

from coprune.report.summary import mean_and_std
from tables.shared import load, named, points, table, versions

RECOVERIES = {"least-squares": "least squares", "reconstruction": "reconstruction"}


def imagenet() -> str:
    """A row a budget and choice; all share out their budgets alike."""
    content = load("imagenet")
    parts = content["splits"]
    base = mean_and_std([part["base"]["value"] for part in parts])
    found: dict[tuple[float, str], dict[str, list[float]]] = {}
    for row in (row for part in parts for row in part["rows"]):
        key = row["budget"], row["method"]
        found.setdefault(key, {}).setdefault(row["recovery"], []).append(row["recovered"])
    solved = {key: mean_and_std(cells.get("least-squares", [])) or (0.0, 0.0) for key, cells in found.items()}
    lines = [
        [
            f"{100 * key[0]:.0f} %",
            named(key[1]),
            *(points(mean_and_std(found[key].get(how, [])), seeds=len(parts)) for how in RECOVERIES),
        ]
        for key in sorted(found, key=lambda key: (-key[0], -solved[key][0]))
    ]
    said = (
        f"\n\n`{content['model']}`, base {points(base, seeds=len(parts))} %; {content['calibration']} images "
        f"calibrate and {parts[0]['base']['samples']} others judge; splits: {len(parts)}; top-1 in per cent, "
        "mean ± standard deviation where there are several. No training; all choices have the measured "
        "allocation. –: not measured."
    )
    return table(["MACs", "choice", *RECOVERIES.values()], lines) + said + versions(content)
