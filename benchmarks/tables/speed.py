"""Tables and plots of what :mod:`benchmarks.speed` measured."""

from __future__ import annotations

import math
from pathlib import Path

from tables.shared import load, table, versions

CELLS = {1: "pooled", 4: "4×4 cells", 0: "every pixel"}
NAMES = {
    "resnet20": "ResNet-20",
    "resnet56": "ResNet-56",
    "resnet110": "ResNet-110",
    "resnet50": "ResNet-50, 224²",
}
PLOTS = {
    "classes": ("classes", "distances of {at_units} units"),
    "units": ("units", "distances of {at_classes} classes"),
    "curve": ("units", "k-medoids, silhouette and knee for every k"),
    "images": ("images", "profile pass of ResNet-20, pooled"),
}


def note(content: dict, said: str, *parts: str) -> str:
    """What stands under a table: how and when its parts were measured."""
    found = {part: content["measured"][part] for part in parts if part in content["measured"]}
    threads = " or ".join(dict.fromkeys(str(c["threads"]) for c in found.values()))
    remarks = ""
    for remark in dict.fromkeys(c["remark"] for c in found.values() if c["remark"]):
        about = [part for part, c in found.items() if c["remark"] == remark]
        remarks += f" {remark}" + (f" ({', '.join(about)})" if len(about) < len(found) else "")
    return f"\n\n{said} threads: {threads}.{remarks}" + versions(content)


def summary(content: dict) -> str:
    """What README says: the promises, a line each, of the parts that were measured."""
    rows = []
    for row in content.get("choice", {}).get("rows", ())[:1]:
        what = f"choice and least squares, {NAMES[row['model']]}, {content['choice']['images']:,} images"
        rows.append([what, f"{sum(row['seconds'].values()):.0f} s"])
    for row in content.get("profile_pass", ()):
        if row["grid"] == 1 and (row["model"] == "resnet20" or row["classes"] == 1000):
            what = f"profile pass, {NAMES[row['model']]}, {row['classes']:,} classes"
            rows.append([what, f"{row['ratio']:.2f} × a plain evaluation pass"])
    if "distances" in content:
        found = content["distances"]
        for part, what in (
            ("groups", "groups of ResNet-50"),
            ("layers", "layers of ResNet-50, each on its own"),
        ):
            total = found["totals"][part]
            rows.append(
                [
                    f"distances of {found['classes']:,} classes, all {total['count']} {what}",
                    f"exact {total['exact']:.0f} s, sketched {total['sketch']:.1f} s",
                ]
            )
    for row in content.get("curve", ()):
        rows.append(
            [f"k-medoids, silhouette, knee: every k of {row['units']:,} units", f"{row['curve_s']:.1f} s"]
        )
    gbfs = content.get("gbfs", {})
    if "ratio" in gbfs:
        rows.append(
            [
                f"the authors' `gbfs`, {gbfs['units']} units, {gbfs['classes']} classes",
                f"{gbfs['ratio']:,.0f} × our time",
            ]
        )
    if "start" in content:
        start = content["start"]
        rows.append(["`coprune --help`; `import coprune`", f"{start['help']:.2f} s; {start['import']:.2f} s"])
    return table(["what", "cost"], rows) + note(
        content, "Medians, in turn on one machine;", *content["measured"]
    )


def choice(content: dict) -> str:
    found = content["choice"]
    rows = []
    for r in found["rows"]:
        together = sum(r["seconds"].values())
        rows.append(
            [
                NAMES[r["model"]],
                f"{r['macs'] / 1e6:.0f} M",
                *(f"{r['seconds'][step]:.1f} s" for step in ("profile", "select", "recover")),
                f"{together:.1f} s",
                f"{together / r['macs'] * 1e6:.2f} s",
            ]
        )
    head = ["network", "MACs", "profile", "choice", "least squares", "together", "a million MACs"]
    said = (
        f"{100 * found['keep_macs']:.0f} % of the MACs, {found['images']:,} calibration images of 28 × 28; "
        f"medians of {found['repeats']} runs of `coprune prune`, measuring accuracy and latency not counted;"
    )
    return table(head, rows) + note(content, said, "choice")


def passes(content: dict) -> str:
    rows = [
        [
            NAMES[r["model"]],
            CELLS[r["grid"]],
            f"{r['classes']:,}",
            f"{r['plain_s']:.2f} s",
            f"{r['profile_s']:.2f} s",
            f"{r['ratio']:.2f}",
        ]
        for r in content["profile_pass"]
    ]
    head = ["network", "values", "classes", "plain pass", "profile pass", "ratio"]
    images = {r["model"]: r["images"] for r in content["profile_pass"]}
    said = (
        f"{images['resnet20']:,} images of Fashion-MNIST, {images['resnet50']} random ones; class moments; "
        "medians of runs in turn;"
    )
    return table(head, rows) + note(content, said, "passes")


def distances(content: dict) -> str:
    found = content["distances"]
    rows = []
    for r in found["widths"]:
        exact, sketch = r["exact"], r["sketch"]
        rows.append(
            [
                f"{r['units']:,}",
                f"{exact['seconds']:.2f} s",
                f"{sketch['seconds']:.2f} s",
                f"{exact['seconds'] / sketch['seconds']:.0f}×",
                f"{exact['above_bytes'] / 1e6:,.0f} MB",
                f"{sketch['above_bytes'] / 1e6:,.0f} MB",
            ]
        )
    for part, what in (("groups", "groups"), ("layers", "layers, each on its own")):
        total = found["totals"][part]
        rows.append(
            [
                f"**all {total['count']} {what}** ({total['units']:,} units)",
                f"{total['exact']:.1f} s",
                f"{total['sketch']:.1f} s",
                f"{total['exact'] / total['sketch']:.0f}×",
                "",
                "",
            ]
        )
    peak = max(r[how]["peak_bytes"] for r in found["widths"] for how in ("exact", "sketch"))
    head = ["units", "exact", "sketched", "faster", "memory, exact", "sketched"]
    said = (
        f"{found['classes']:,} classes, drawn moments, pooled. Each width was measured once, in a process of "
        "its own, and counts as often as ResNet-50 has it; memory is what the process grew by; the largest "
        f"process took {peak / 1e9:.2f} GB in all;"
    )
    return table(head, rows) + note(content, said, "distances")


def agreement(content: dict) -> str:
    found = content["agreement"]
    rows = [
        [
            f"`{r['layer']}`",
            f"{r['units']:,}",
            f"{r['rank']:.1f}",
            f"{r['bound']:.3f}",
            f"{r['worst']:.4f}",
            f"{r['typical']:.2f}",
            f"{100 * r['same']:.1f} %",
            f"{r['exact_s'] / r['sketch_s']:.0f}×",
        ]
        for r in found["rows"]
    ]
    head = ["layer", "units", "columns", "bound", "largest error", "median distance", "same kept", "faster"]
    said = (
        f"Moments of ResNet-50 on {found['classes']:,} synthetic classes; bound, error and distance in JM a "
        f"class pair (root mean square); tolerance {found['tolerance']:g}. *Same kept*: units that CoSeP "
        "keeps at half budget with both distances;"
    )
    return table(head, rows) + note(content, said, "agreement")


def curve(content: dict) -> str:
    rows = [
        [
            f"{r['units']:,}",
            f"{r['curve_s']:.2f} s",
            f"{r['independent_s']:.0f} s",
            f"{r['independent_s'] / r['curve_s']:.0f}×",
            f"{r['objective']:.4f}",
            f"{r['worst']:.4f}",
        ]
        for r in content["curve"]
    ]
    head = [
        "units",
        "our curve",
        "independent FasterPAM",
        "faster",
        "our objective / theirs",
        "at the worst k",
    ]
    said = (
        f"Every k from 2 to U − 1, with silhouettes and knee; independent runs from random starts at "
        f"{content['curve'][0]['looked_at']} values of k, their time counted for all;"
    )
    return table(head, rows) + note(content, said, "curve")


def gbfs(content: dict) -> str:
    found = content["gbfs"]
    if "skipped" in found:
        return f"Not measured: {found['skipped']}."
    ours, theirs = found["ours"], found["theirs"]
    rows = [
        [
            what,
            f"{theirs[key]:,.1f} s",
            f"{ours[key]:.3f} s",
            f"{theirs[key] / ours[key]:,.0f}×",
        ]
        for what, key in (("separability", "separability_s"), ("every k: k-medoids, silhouette", "curve_s"))
    ]
    rows.append(
        [
            "**together**",
            f"{sum(theirs.values()):,.0f} s",
            f"{sum(ours.values()):.2f} s",
            f"{found['ratio']:,.0f}×",
        ]
    )
    named = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    said = (
        f"{found['units']} units, {found['classes']} classes, the same samples; its k-medoids was run for "
        f"{found['looked_at']} values of k and the others counted at their mean. Our sum of distances to the "
        f"medoids is {found['objective']:.4f} of its, {found['worst']:.4f} at the worst k ({named});"
    )
    return table(["step", "`gbfs`", "coprune", "faster"], rows) + note(content, said, "gbfs")


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line through log x, log y (least squares) over the upper half of the points."""
    upper = points[len(points) // 2 - (len(points) < 4) :] if len(points) > 2 else points
    logs = [(math.log(x), math.log(y)) for x, y in upper]
    mx, my = (sum(v) / len(logs) for v in zip(*logs, strict=True))
    return sum((x - mx) * (y - my) for x, y in logs) / sum((x - mx) ** 2 for x, _ in logs)


def series(content: dict) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Plot → line → points."""
    growth = content["growth"]
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for plot in PLOTS:
        lines = ("exact", "sketch") if plot in ("classes", "units") else ("seconds",)
        found[plot] = {line: [(p["x"], p[line]) for p in growth[plot]] for line in lines}
    return found


def growth(content: dict) -> str:
    rows = []
    for plot, lines in series(content).items():
        what = PLOTS[plot][1].format(**content["growth"])
        for line, points in lines.items():
            said = f"{what}{', ' + line if line != 'seconds' else ''}"
            grows = f"{points[0][0]:,.0f} → {points[-1][0]:,.0f} {PLOTS[plot][0]}"
            rows.append(
                [said, grows, f"{points[0][1]:.3g} s → {points[-1][1]:.3g} s", f"{slope(points):.2f}"]
            )
    said = "*Slope*: of the upper half of the points, both axes logarithmic: time grows with that power;"
    return table(["what", "from … to", "seconds", "slope"], rows) + note(content, said, "growth")


def plot(content: dict, path: Path) -> None:
    """The growths as one picture, byte for byte the same for the same figures."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "coprune", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 6.4), layout="constrained")
        for axes, (name, lines) in zip(figure.subplots(2, 2).flat, series(content).items(), strict=True):
            for line, points in lines.items():
                label = f"{'' if line == 'seconds' else line + ', '}slope {slope(points):.2f}"
                axes.loglog(*zip(*points, strict=True), marker="o", markersize=3, label=label)
            axes.set_title(PLOTS[name][1].format(**content["growth"]), fontsize=9)
            axes.set_xlabel(PLOTS[name][0])
            axes.set_ylabel("seconds")
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


TABLES = {
    "speed": summary,
    "speed_choice": choice,
    "speed_passes": passes,
    "speed_distances": distances,
    "speed_agreement": agreement,
    "speed_curve": curve,
    "speed_gbfs": gbfs,
    "speed_growth": growth,
}
NEEDED = {
    "speed_choice": "choice",
    "speed_passes": "profile_pass",
    "speed_distances": "distances",
    "speed_agreement": "agreement",
    "speed_curve": "curve",
    "speed_gbfs": "gbfs",
    "speed_growth": "growth",
}


def real_size() -> str:
    """Passes and gigabytes of networks of real size, a row a network."""
    content = load("real_size")
    lines = [
        [
            f"`{row['network']}`",
            f"{row['macs'] / 1e9:.2f} G",
            f"{row['pass']:.0f} s",
            *(f"{row['seconds'][stage] / row['pass']:.1f}" for stage in ("profile", "select", "recover")),
            f"**{row['passes']:.1f}**",
            f"{row['above'] / 2**30:.1f} GiB",
        ]
        for row in content["rows"]
    ]
    head = [
        "network",
        "MACs",
        "a plain pass",
        "profile",
        "choice",
        "least squares",
        "together",
        "peak memory",
    ]
    said = (
        f"\n\n{content['rows'][0]['samples']} calibration images of {content['size']} × {content['size']}, "
        f"{100 * content['keep_macs']:.0f} % of the MACs, random weights; profile, choice with allocation, "
        "and least squares in plain passes over the same images; memory above what was held with the network "
        f"and images; threads: {content['threads']}."
    )
    return table(head, lines) + said + versions(content)
