"""Without training: choices, recoveries, what each is worth, ``--max-drop``."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from coprune.report import summarise
from tables.shared import load, named, points, table, there, versions

RECOVERED = {"bn": "recovery by batch norm only", "none": "no recovery"}

COLUMNS = {
    "cut": "as cut",
    "bn": "+ batch norm",
    "channel-least-squares": "+ channel least squares",
    "least-squares": "+ least squares",
}
"""Recoveries from the weakest on; channel least squares measures batch norms again too."""

UNITS = {False: "Inner channels only.", True: "Inner and coupled channels (`--units inner,coupled`)."}


def quality(name: str) -> Callable[[], str]:
    """Choice × budget × allocation × recovery without training: a row a budget and method."""

    def rendered() -> str:
        content = load(name)
        base, job, cells = content["base"], content["job"], _cells(content)
        rows = sorted({key[:2] for key in cells}, key=lambda key: (-key[0], -_best(cells, *key)[0]))
        there_is = {key[2:] for key in cells}
        told = [
            (way, how, f"{head}, {way}" if _both(content) else head)
            for way in ("uniform", "measured")
            for how, head in COLUMNS.items()
            if (way, how) in there_is
        ]
        if not _both(content):  # each choice in its own way, side by side
            told = [(None, how, head) for how, head in COLUMNS.items() if any(h == how for _, h in there_is)]
        lines = [
            [
                f"{100 * budget:.0f} %",
                named(method),
                *(points(_cell(cells, budget, method, way, how)) for way, how, _ in told),
                f"{100 * (base['value'] - _best(cells, budget, method)[0]):.2f}",
            ]
            for budget, method in rows
        ]
        said = (
            f"\n\n`{job['model']}` on `{job['data']}`, base {100 * base['value']:.2f} %, "
            f"{base['macs'] / 1e6:.2f} M MACs; {job['calibration']:,} calibration images, {job['seeds']} "
            f"seeds, mean ± standard deviation; top-1 on the whole test set, in per cent. No training. "
            f"{UNITS[_coupled(content)]} {_shared_out(content)}"
        )
        head = ["MACs", "choice", *(head for *_, head in told), "points lost"]
        return table(head, lines) + said + versions(content)

    return rendered


Cells = dict[tuple[float, str, str, str], tuple[float, float]]
"""(budget, method, allocation, recovery) → mean and spread; ``cut`` is before recovery."""


def _cells(content: dict) -> Cells:
    found: Cells = {}
    for row in summarise(content):
        key = row["budget"], row["method"], row["allocation"] or "uniform"
        found |= {(*key, "cut"): row["pruned"], (*key, row["recovery"]): row["recovered"]}
    return found


def _cell(cells: Cells, budget: float, method: str, way: str | None, how: str) -> tuple | None:
    """A figure; without a way that of the only one that the method has."""
    ways = ("measured", "uniform") if way is None else (way,)
    return next((cells[budget, method, w, how] for w in ways if (budget, method, w, how) in cells), None)


def _best(cells: Cells, budget: float, method: str) -> tuple[float, float]:
    """After least squares, with the measured allocation where that was asked for."""
    return _cell(cells, budget, method, None, "least-squares") or (0.0, 0.0)


def _coupled(content: dict) -> bool:
    """Whether coupled channels could go: asked for, or taken in since a budget leaves too few others."""
    return bool(content["job"].get("units")) or any("may go too" in note for note in content.get("notes", ()))


def _both(content: dict) -> bool:
    """Whether every choice was measured with both allocations."""
    return len(content["job"].get("allocations", ())) > 1


def _shared_out(content: dict) -> str:
    if _both(content):
        return (
            "Every choice shares out its budget uniformly and by measured sensitivity; `complementary` with "
            "the latter and least squares is the default."
        )
    return "`complementary` allots its budget by measured sensitivity, the others uniformly."


def headline() -> str:
    """Our choice, the best baseline and magnitude, a row a network and budget."""
    lines, fair, others = [], [], []
    for name in ("quality_resnet20", "quality_resnet20_coupled", "quality_vgg16_bn"):
        if not there(name):
            continue
        content = load(name)
        cells = _cells(content)
        network = content["job"]["model"].rsplit("/", 1)[-1].removeprefix("coprune:").split("@")[0]
        network += ", coupled too" if _coupled(content) else ""
        (fair if _both(content) else others).append(network)
        for budget in sorted({key[0] for key in cells}, reverse=True):
            figures = {m: _best(cells, budget, m) for b, m, *_ in cells if b == budget}
            best = max((m for m in figures if m != "complementary"), key=lambda m: figures[m][0])
            lines.append(
                [
                    network,
                    f"{100 * budget:.0f} %",
                    f"{100 * content['base']['value']:.2f}",
                    f"**{points(figures['complementary'])}**",
                    f"{points(figures[best])} (`{best}`)",
                    points(figures.get("magnitude")),
                ]
            )
    head = ["network", "MACs kept", "unpruned", "`complementary`", "best baseline", "`magnitude`"]
    said = "\n\nTop-1 on Fashion-MNIST's test set in per cent, mean ± standard deviation over seeds "
    said += "(`make bench-quality`). "
    if fair:
        said += f"Of {', '.join(fair)} all choices have the same measured allocation. "
    if others:
        said += f"Of {', '.join(others)} only `complementary` has it; the others share out uniformly."
    return table(head, lines) + said.rstrip()


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def worth() -> str:
    """What recovery, allocation and choice are worth, each with the others held fast."""
    lines, last = [], None
    for name in ("quality_resnet20", "quality_resnet20_coupled", "quality_vgg16_bn"):
        if not there(name) or not _both(load(name)):
            continue
        last = content = load(name)
        cells = _cells(content)
        for budget in sorted({key[0] for key in cells}, reverse=True):
            methods = sorted({m for b, m, *_ in cells if b == budget})

            def at(method: str, way: str, how: str, budget: float = budget, cells: Cells = cells) -> float:
                return 100 * cells[budget, method, way, how][0]

            recovery = [at(m, "uniform", "least-squares") - at(m, "uniform", "bn") for m in methods]
            shares = [at(m, "measured", "least-squares") - at(m, "uniform", "least-squares") for m in methods]
            baselines = [m for m in methods if m not in ("complementary", "random")]
            choice = []
            for way in ("uniform", "measured"):
                rival = max(baselines, key=lambda m: at(m, way, "least-squares"))
                lead = at("complementary", way, "least-squares") - at(rival, way, "least-squares")
                choice.append(f"{_signed(lead)} (`{rival}`)")
            chance = at("complementary", "measured", "least-squares") - at(
                "random", "measured", "least-squares"
            )
            lines.append(
                [
                    f"`{content['job']['model']}`" + (", coupled too" if _coupled(content) else ""),
                    f"{100 * budget:.0f} %",
                    _signed(statistics.fmean(recovery)),
                    _signed(statistics.fmean(shares)),
                    *choice,
                    _signed(chance),
                ]
            )
    head = ["network", "MACs", "recovery", "allocation"]
    head += ["choice, uniform", "choice, measured", "choice against chance"]
    said = (
        "\n\nPoints. *Recovery*: least squares instead of batch norm, uniform allocation, mean over all "
        "choices. *Allocation*: measured instead of uniform, least squares, mean over all choices. *Choice*: "
        "`complementary` before the best baseline (in brackets) and before random units, least squares, both "
        "with the same allocation."
    )
    return table(head, lines) + said + versions(last or {})


NETWORKS = ("resnet20", "vgg16_bn")


def reconstruction() -> str:
    """What all layers together add to least squares, a row a network, budget and method."""
    lines, bases, content = [], [], None
    for network in NETWORKS:
        if not there(f"reconstruction_{network}"):
            continue
        content = load(f"reconstruction_{network}")
        cells = _cells(load(f"quality_{network}"))
        base = content["base"]["value"]
        bases.append(f"`{network}` {100 * base:.2f} %")
        rows = sorted(summarise(content), key=lambda r: (-r["budget"], -r["recovered"][0]))
        lines += [
            [
                f"`{network}`",
                f"{100 * row['budget']:.0f} %",
                named(row["method"]),
                points(_cell(cells, row["budget"], row["method"], row["allocation"], "least-squares")),
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
