"""Heads and neurons of MiniLM."""

from __future__ import annotations

import statistics

from coprune.report import summarise
from coprune.report.summary import STAGES
from tables.shared import load, named, points, table, versions

TEXT_PARTS = {"heads": "heads", "heads and neurons": "MACs, heads and neurons"}


def text() -> str:
    """Heads alone, and heads with neurons: points lost against each seed's own base."""
    content = load("text")
    lines = []
    for part, what in TEXT_PARTS.items():
        plain, trained = _lost(content, part), _lost(content, f"{part}, trained")
        for (budget, method), row in sorted(
            plain.items(), key=lambda item: (-item[0][0], item[1]["recovered"][0])
        ):
            after = trained.get((budget, method))
            lines.append(
                [
                    f"{100 * budget:.0f} % of the {what}",
                    named(method),
                    row["size"],
                    points(row["pruned"], seeds=row["seeds"]),
                    points(row["recovered"], seeds=row["seeds"]),
                    points(after and after["finetuned"], seeds=after["seeds"] if after else 0),
                ]
            )
    head = ["asked", "choice", "units kept, MACs", "as cut", "least squares", "+ 1 epoch"]
    shown = len(head) - all(line[-1] == "–" for line in lines)
    lines = [line[:shown] for line in lines]
    return table(head[:shown], lines) + "\n\n" + _text_said(content) + versions(content)


def _lost(content: dict, part: str) -> dict[tuple[float, str], dict]:
    """(budget, method) → its summary over the seeds, of points lost instead of accuracies."""
    rows = [
        {**row, **{s: made["base"]["value"] - row[s] for s in STAGES if row[s] is not None}}
        for made in content["comparisons"]
        if made["part"] == part
        for row in made["rows"]
    ]
    found = {}
    for summary in summarise({"rows": rows}):
        key = (summary["budget"], summary["method"])
        same = [r for r in rows if (r["budget"], r["method"]) == key]
        units, macs = (statistics.fmean(r[name] for r in same) for name in ("kept", "macs_ratio"))
        found[key] = {**summary, "size": f"{units:,.0f}, {100 * macs:.0f} %"}
    return found


def _text_said(content: dict) -> str:
    """What was measured on, and how CAHP fares at its own knee."""
    seeds = len({made["seed"] for made in content["comparisons"]})
    said = (
        f"Points lost, mean ± standard deviation over {seeds} seeds, each with a split (a fifth of the "
        f"sentences held out) and a base model of its own ({_bases(content)}); "
        f"{content['calibration']:,} calibration sentences. `complementary` "
        "shares out its budget by measured sensitivity, choices over all heads at "
        "once by their own order, the others uniformly."
    )
    epochs: dict[str, list[str]] = {}
    for made in content["comparisons"]:
        if made["part"].endswith(", trained"):
            recipe = made["finetune"]
            hidden = f", hidden outputs (weight {recipe['match']:g})" if recipe["match"] else ""
            rate = f"rate {recipe['lr']:g}, soft labels{hidden}"
            epochs.setdefault(rate, []).append(made["part"].removesuffix(", trained"))
    for recipe, parts in epochs.items():
        of = f" of {' and of '.join(dict.fromkeys(parts))}" if len(epochs) > 1 else ""
        said += f" The epoch{of}: AdamW, {recipe}, {content['precision']}, the same for all."
    knees = [
        (row["kept"], *(100 * row[stage] for stage in ("pruned", "finetuned")), 100 * made["base"]["value"])
        for made in content["comparisons"]
        if made["part"] == "cahp at its knee"
        for row in made["rows"]
    ]
    if knees:
        told = "; ".join(f"{k} heads, {b:.2f} → {c:.2f} → {t:.2f} %" for k, c, t, b in knees)
        said += (
            " CAHP as published, at its own knee, with its three epochs and no other recovery (base → as cut "
            f"→ trained): {told}."
        )
    return said


def _bases(content: dict) -> str:
    """Accuracies of the base models; parts that were measured at different times may have different ones."""
    found: dict[str, list[str]] = {}
    for part in dict.fromkeys(made["part"] for made in content["comparisons"]):
        values = [100 * made["base"]["value"] for made in content["comparisons"] if made["part"] == part]
        named = " / ".join(f"{value:.2f}" for value in values) + " %"
        found.setdefault(named, []).append(part)
    if len(found) == 1:
        return next(iter(found))
    said = []
    for named, parts in found.items():
        plain = [part for part in parts if not part.endswith(", trained")]
        of = plain or [part.replace(", trained", " with the epoch") for part in parts]
        said.append(f"{', '.join(of)}: {named}")
    return "; ".join(said)
