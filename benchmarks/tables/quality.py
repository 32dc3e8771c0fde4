"""Without training: choices, recoveries, ingredients, ``--max-drop``."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from coprune.report import summarise
from tables.shared import load, points, table, there, versions

RECOVERED = {"bn": "recovery by batch norm only", "none": "no recovery"}

COLUMNS = {
    "cut": "as cut",
    "bn": "+ batch norm",
    "channel-least-squares": "+ channel least squares",
    "least-squares": "+ least squares",
}
"""Recoveries from the weakest on; channel least squares measures batch norms again too."""

UNITS = {
    (): "Inner channels only.",
    ("inner", "coupled"): "Inner and coupled channels (`--units inner,coupled`).",
}


def quality(name: str) -> Callable[[], str]:
    """Choice × budget × recovery without training: points lost, a row a budget and method."""

    def rendered() -> str:
        content = load(name)
        base, job = content["base"], content["job"]
        rows: dict[tuple, dict[str, tuple]] = {}
        for row in summarise(content):
            cells = rows.setdefault((row["budget"], row["method"]), {"cut": row["pruned"]})
            cells[row["recovery"]] = row["recovered"]
        order = sorted(rows, key=lambda key: (-key[0], -rows[key]["least-squares"][0]))
        told = {how: head for how, head in COLUMNS.items() if any(how in cells for cells in rows.values())}
        lines = [
            [
                f"{100 * budget:.0f} %",
                f"**`{method}`**" if method == "complementary" else f"`{method}`",
                *(points(rows[budget, method][how]) for how in told),
                f"{100 * (base['value'] - rows[budget, method]['least-squares'][0]):.2f}",
            ]
            for budget, method in order
        ]
        said = (
            f"\n\n`{job['model']}` on `{job['data']}`, base {100 * base['value']:.2f} %, "
            f"{base['macs'] / 1e6:.2f} M MACs; {job['calibration']:,} calibration images, {job['seeds']} "
            f"seeds, mean ± standard deviation; top-1 on the whole test set, in per cent. No training. "
            f"{UNITS[tuple(job.get('units') or ())]} "
            "`complementary` allots its budget by measured sensitivity, the others uniformly."
        )
        head = ["MACs", "choice", *told.values(), "points lost"]
        return table(head, lines) + said + versions(content)

    return rendered


def headline() -> str:
    """Our choice, the best baseline and magnitude, a row a network and budget."""
    lines, content = [], {}
    for name in ("quality_resnet20", "quality_resnet20_coupled", "quality_vgg16_bn"):
        if not there(name):
            continue
        content = load(name)
        solved = [row for row in summarise(content) if row["recovery"] == "least-squares"]
        network = content["job"]["model"].rsplit("/", 1)[-1].removeprefix("coprune:").split("@")[0]
        for budget in sorted({row["budget"] for row in solved}, reverse=True):
            cells = {row["method"]: row["recovered"] for row in solved if row["budget"] == budget}
            best = max((m for m in cells if m != "complementary"), key=lambda m: cells[m][0])
            lines.append(
                [
                    network + (", coupled too" if content["job"].get("units") else ""),
                    f"{100 * budget:.0f} %",
                    f"{100 * content['base']['value']:.2f}",
                    f"**{points(cells['complementary'])}**",
                    f"{points(cells[best])} (`{best}`)",
                    points(cells.get("magnitude")),
                ]
            )
    head = ["network", "MACs kept", "unpruned", "`complementary`", "best baseline", "`magnitude`"]
    said = "\n\nTop-1 on Fashion-MNIST's test set in per cent, mean ± standard deviation over seeds "
    said += "(`make bench-quality`)."
    return table(head, lines) + said


NETWORKS = ("resnet20", "vgg16_bn")


def reconstruction() -> str:
    """What all layers together add to least squares, a row a network, budget and method."""
    lines, bases, content = [], [], None
    for network in NETWORKS:
        if not there(f"reconstruction_{network}"):
            continue
        content = load(f"reconstruction_{network}")
        solved = {
            (r["budget"], r["method"]): r["recovered"]
            for r in summarise(load(f"quality_{network}"))
            if r["recovery"] == "least-squares"
        }
        base = content["base"]["value"]
        bases.append(f"`{network}` {100 * base:.2f} %")
        rows = sorted(summarise(content), key=lambda r: (-r["budget"], -r["recovered"][0]))
        lines += [
            [
                f"`{network}`",
                f"{100 * row['budget']:.0f} %",
                f"**`{row['method']}`**" if row["method"] == "complementary" else f"`{row['method']}`",
                points(solved[row["budget"], row["method"]]),
                points(row["recovered"]),
                f"{100 * (base - row['recovered'][0]):.2f}",
            ]
            for row in rows
        ]
    said = (
        f"\n\n`{content['job']['data']}`, bases: {', '.join(bases)}; {content['job']['calibration']:,} "
        f"calibration images without labels, {content['job']['seeds']} seeds, mean ± standard deviation; "
        "top-1 on the whole test set, in per cent. Least squares as in the tables of `make bench-quality`."
    )
    head = ["network", "MACs", "choice", "least squares", "reconstruction", "points lost"]
    return table(head, lines) + said + versions(content)


def ingredients() -> str:
    """What each ingredient of the recommended way is worth at the strongest budget that was measured."""
    rows = []
    for name in ("quality_resnet20", "quality_resnet20_coupled", "quality_vgg16_bn"):
        content = load(name)
        summary = {(r["budget"], r["method"], r["recovery"]): r for r in summarise(content)}
        for budget in sorted({k[0] for k in summary}, reverse=True):
            ours = summary[budget, "complementary", "least-squares"]["recovered"][0]
            plain = max(
                r["recovered"][0]
                for (b, m, how), r in summary.items()
                if b == budget and how == "bn" and m != "complementary"
            )
            rows.append(
                [
                    f"`{content['job']['model']}`" + (", coupled too" if content["job"].get("units") else ""),
                    f"{100 * budget:.0f} %",
                    f"{100 * (content['base']['value'] - ours):.2f}",
                    *(
                        _lead(summary, budget, how)
                        for how in ("bn", "channel-least-squares", "least-squares")
                    ),
                    f"{100 * (ours - plain):+.2f}",
                ]
            )
    head = [
        "network",
        "MACs",
        "points lost",
        "lead, both with batch norm",
        "both with channel least squares",
        "both with least squares",
        "least squares over baselines with batch norm",
    ]
    said = (
        "\n\nPoints; in brackets the best baseline with that recovery. A lead is that of choice and "
        "allocation together: baselines share out their budget uniformly. –: not measured."
    )
    return table(head, rows) + said + versions(load("quality_resnet20"))


def _lead(summary: dict[tuple, dict], budget: float, how: str) -> str:
    """Points before the best baseline with the same recovery, and who that is."""
    found = {m: r["recovered"][0] for (b, m, h), r in summary.items() if (b, h) == (budget, how)}
    if not found:
        return "–"
    ours = found.pop("complementary")
    best = max(found, key=lambda method: found[method])
    return f"{100 * (ours - found[best]):+.2f} (`{best}`)"


def ablation() -> str:
    """Points lost with one ingredient changed at a time."""
    content = load("ablation")
    cells: dict[str, dict[tuple[str, float], str]] = {}
    for part in content["variants"]:
        for row in part["rows"]:
            said = part["variant"] if row["recovery"] == "least-squares" else RECOVERED[row["recovery"]]
            column = (part["model"], row["budget"])
            same = [
                100 * (part["base"] - (r["pruned"] if r["recovered"] is None else r["recovered"]))
                for r in part["rows"]
                if (r["recovery"], r["budget"]) == (row["recovery"], row["budget"])
            ]
            spread = statistics.stdev(same) if len(same) > 1 else 0.0
            cells.setdefault(said, {})[column] = f"{statistics.fmean(same):.2f} ± {spread:.2f}"
    columns = sorted({c for row in cells.values() for c in row}, key=lambda c: (c[0], -c[1]))
    rows = [[said, *(row.get(c, "–") for c in columns)] for said, row in cells.items()]
    head = ["points lost", *(f"{model}, {100 * budget:.0f} %" for model, budget in columns)]
    said = (
        f"\n\nMean ± standard deviation over {content['seeds']} seeds; {content['calibration']:,} "
        "calibration images, no training. –: not measured."
    )
    return table(head, rows) + said + versions(content)


def judged() -> str:
    """Who judged: how often the held-out samples show more than was allowed, and by how much."""
    content = load("judged")
    rows = []
    for on in dict.fromkeys(row["on"] for row in content["rows"]):
        for limit in dict.fromkeys(row["limit"] for row in content["rows"]):
            some = [row for row in content["rows"] if (row["on"], row["limit"]) == (on, limit)]
            lost = [row["heldout"] for row in some]
            rows.append(
                [
                    f"{some[0]['samples']:,} {on}{' samples' if on == 'validation' else ''}",
                    f"{limit:g}",
                    f"{sum(value > limit + 1e-9 for value in lost)} of {len(some)}",
                    f"{sum(lost) / len(lost):.2f} ({min(lost):.2f} to {max(lost):.2f})".replace("-", "−"),
                    f"{sum(row['judged'] for row in some) / len(some):.2f}".replace("-", "−"),
                    f"{100 * sum(row['macs'] for row in some) / len(some):.0f} %",
                ]
            )
    head = ["judged on", "allowed", "held-out shows more", "held-out loss", "judged loss", "MACs left"]
    said = (
        f"\n\n`max_drop` in points on digits of 8×8 pixels, {content['seeds']} seeds: {content['train']} "
        f"training images, which the network has right to the last, {content['validation']} for validation, "
        f"{content['heldout']} held out. Loss: mean (least to greatest)."
    )
    return table(head, rows) + said + versions(content)


def max_drop() -> str:
    content = load("max_drop")
    limit = content["max_drop"]
    rows = []
    for row in content["rows"]:
        held = [
            size["macs"]
            for size in [*content["sizes"], row]
            if (size["model"], size["seed"]) == (row["model"], row["seed"]) and size["heldout_drop"] <= limit
        ]
        rows.append(
            [
                f"`{row['model']}`",
                str(row["seed"]),
                f"{100 * row['macs']:.1f} %",
                f"{row['calibration_drop']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
                f"{row['heldout_drop']:.2f}",
                f"{100 * min(held):.1f} % ({100 * (row['macs'] / min(held) - 1):+.0f} %)" if held else "none",
                f"{row['seconds']:.0f} s",
            ]
        )
    said = (
        f"\n\n`--max-drop {limit:g}` on `{content['data']}`, {content['calibration']:,} calibration images: "
        "a thousand choose and recover and the others judge; points lost. *Would have held*: the smallest of "
        "the sizes around it, 5 % apart, that lost no more than the limit on the held-out images, and by how "
        "much the taken one is larger. "
        f"Lost more than allowed: {sum(r['heldout_drop'] > limit for r in content['rows'])} of "
        f"{len(content['rows'])}."
    )
    head = [
        "network",
        "seed",
        "MACs",
        "lost on judging",
        "lost on held-out",
        "would have held",
        "took",
    ]
    return table(head, rows) + said + versions(content)
