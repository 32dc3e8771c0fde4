"""Render the tables of README and docs from the JSON under ``benchmarks/results``.

    python benchmarks/render.py

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; what is there is replaced.
Nothing in those places is ever typed by hand.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import speed_table
from coprune.cosep import CoSePSettings
from coprune.report import summarise
from coprune.report.summary import STAGES
from coprune.store.model import describe
from coprune.store.names import BUNDLED, bundled_names

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

RECOVERED = {"bn": "recovery by batch norm only", "none": "no recovery"}
GROUPS = {"resnet20": 9, "resnet56": 27, "vgg16_bn": 12}
READING = ("grid", "at", "space", "mss", "knee", "knee_degree")
DEFAULT = tuple(getattr(CoSePSettings(), name) for name in READING)


def load(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def versions(content: dict) -> str:
    named = ", ".join(f"{k} {v}" for k, v in content["versions"].items())
    return f"\n\n<sub>{named}</sub>"


def points(stage: tuple[float, float] | None, *, seeds: int = 3) -> str:
    """Mean and spread in per cent; one seed has no spread."""
    if not stage:
        return "–"
    return f"{100 * stage[0]:.2f}" + (f" ± {100 * stage[1]:.2f}" if seeds > 1 else "")


def compare(name: str) -> Callable[[], str]:
    def rendered() -> str:
        content = load(name)
        rows = []
        for row in summarise(content):
            ratio = row["macs_ratio"]
            budget = row["budget"]
            rows.append(
                [
                    f"{budget:g}" if isinstance(budget, float) else str(budget),
                    f"`{row['method']}`",
                    f"{100 * (ratio[0] if isinstance(ratio, tuple) else ratio):.1f} %",
                    points(row["pruned"]),
                    points(row["recovered"]),
                    points(row["finetuned"]),
                ]
            )
        base, job = content["base"], content["job"]
        train = job["finetune"]
        head = ["budget", "method", "MACs", "cut", "+ batch norm", f"+ {train['epochs']} epoch"]
        said = (
            f"\n\n`{job['model']}` on `{job['data']}`, base {100 * base['value']:.2f} %, "
            f"{base['macs'] / 1e6:.2f} M MACs; {job['seeds']} seeds, mean ± standard deviation; top-1 on the "
            f"whole test set, in per cent. Training for every row: {train['epochs']} epoch, SGD, "
            f"{train['schedule']} from {train['lr']:g}, batch {train['batch_size']}, distillation weight "
            f"{train['distill']:g}, {train['precision']}."
        )
        return table(head, rows) + said + versions(content)

    return rendered


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
        lines = [
            [
                f"{100 * budget:.0f} %",
                f"**`{method}`**" if method == "complementary" else f"`{method}`",
                points(rows[budget, method]["cut"]),
                points(rows[budget, method]["bn"]),
                points(rows[budget, method]["least-squares"]),
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
        head = ["MACs", "choice", "as cut", "+ batch norm", "+ least squares", "points lost"]
        return table(head, lines) + said + versions(content)

    return rendered


def ingredients() -> str:
    """What each ingredient of the recommended way is worth at the strongest budget that was measured."""
    rows = []
    for name in ("quality_resnet20", "quality_resnet20_coupled", "quality_vgg16_bn"):
        content = load(name)
        summary = {(r["budget"], r["method"], r["recovery"]): r for r in summarise(content)}
        for budget in sorted({k[0] for k in summary}, reverse=True):
            ours = summary[budget, "complementary", "least-squares"]["recovered"][0]
            best = max(
                (r["recovered"][0], m)
                for (b, m, how), r in summary.items()
                if b == budget and how == "least-squares" and m != "complementary"
            )
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
                    f"{100 * (ours - best[0]):+.2f} (`{best[1]}`)",
                    f"{100 * (ours - plain):+.2f}",
                ]
            )
    head = ["network", "MACs", "points lost", "lead, same recovery", "lead over batch norm only"]
    return table(head, rows) + versions(load("quality_resnet20"))


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
                    f"**`{method}`**" if method == "complementary" else f"`{method}`",
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
    bases = {made["seed"]: made["base"] for made in content["comparisons"]}
    named = " / ".join(f"{100 * base['value']:.2f}" for base in bases.values())
    said = (
        f"Points lost, mean ± standard deviation over {len(bases)} seeds, each with a split (2,105 held-out "
        f"sentences) and a base model of its own ({named} %); {content['calibration']:,} calibration "
        "sentences. `complementary` shares out its budget by measured sensitivity, `cahp` and `michel` over "
        "all heads at once, the others uniformly."
    )
    seeds = {made["seed"] for made in content["comparisons"] if made["part"].endswith(", trained")}
    if seeds:
        said += (
            f" The epoch: AdamW, distillation, {content['precision']}, the same for all; {len(seeds)} seeds."
        )
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


TRAININGS = ("1000x2", "6000x1", "60000x1")


def training() -> str:
    """Accuracy against images of training seen: a row a budget, choice and recovery."""
    cells: dict[tuple, dict[str, str]] = {}
    sizes: dict[tuple, float] = {}
    contents = {
        name: load(f"training_{name}") for name in TRAININGS if (RESULTS / f"training_{name}.json").is_file()
    }
    for name, content in contents.items():
        for row in summarise(content):
            key = (row["budget"], row["method"], row["recovery"])
            line = cells.setdefault(key, {"untrained": points(row["recovered"])})
            rates = {r["rate"] for r in content["rows"] if (r["budget"], r["method"], r["recovery"]) == key}
            line[name] = f"{points(row['finetuned'])} ({', '.join(f'{r:g}' for r in sorted(rates))})"
            sizes.setdefault(key, row["recovered"][0])
    order = sorted(cells, key=lambda key: (-key[0], key[2] != "least-squares", -sizes[key]))
    lines = [
        [
            f"{100 * budget:.0f} %",
            f"**`{method}`**" if method == "complementary" else f"`{method}`",
            "least squares" if recovery == "least-squares" else "batch norm",
            cells[key]["untrained"],
            *(cells[key].get(name, "–") for name in contents),
        ]
        for key in order
        for budget, method, recovery in [key]
    ]
    heads = {"1000x2": "1,000 × 2", "6000x1": "6,000 × 1", "60000x1": "60,000 × 1"}
    first = next(iter(contents.values()))
    job = first["job"]
    train = job["finetune"]
    said = (
        f"\n\n`{job['model']}` on `{job['data']}`, base {100 * first['base']['value']:.2f} %; images × "
        f"passes of training after the recovery; SGD, cosine to 0, batch {train['batch_size']}, distillation "
        f"weight {train['distill']:g}; {job['seeds']} seeds, mean ± standard deviation of top-1 on the whole "
        "test set, in per cent. In brackets the learning rate that did best on calibration data."
    )
    head = ["MACs", "choice", "recovery", "untrained", *(heads[name] for name in contents)]
    return table(head, lines) + said + _least_trained(cells, sizes, heads) + versions(first)


def _least_trained(cells: dict[tuple, dict[str, str]], untrained: dict[tuple, float], heads: dict) -> str:
    """How much training a rival without least squares needs to reach the default without any."""
    said = "\n\nTo reach untrained `complementary` with least squares, the best rival with batch norm needs"
    for budget in sorted({key[0] for key in cells}, reverse=True):
        wanted = 100 * untrained[budget, "complementary", "least-squares"]
        rivals = [
            line for (b, m, how), line in cells.items() if (b, how) == (budget, "bn") and m != "complementary"
        ]
        tried = [name for name in heads if any(name in line for line in rivals)]
        best = {name: max(float(line[name].split()[0]) for line in rivals if name in line) for name in tried}
        enough = next((name for name in tried if best[name] >= wanted), None)
        need = heads[enough] if enough else f"more than {heads[tried[-1]]} ({best[tried[-1]]:.2f})"
        said += f" at {100 * budget:.0f} % of the MACs {need},"
    return said.rstrip(",") + "."


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


def cosep_variants() -> str:
    content = load("cosep_variants")
    by_reading: dict[tuple, dict[str, dict]] = {}
    for row in content["rows"]:
        by_reading.setdefault(tuple(row[k] for k in READING), {})[row["model"]] = row
    seeds = content["seeds"]
    rows = []
    for ranked in content["ranked"]:
        reading = tuple(ranked[k] for k in READING)
        found = by_reading[reading]
        # VGG's group count: its first and last convolution are no inner groups.
        groups = sum(GROUPS[m] for m in found) * seeds
        fallback = sum(r["fallbacks"] for r in found.values()) / groups
        grid, at, space, mss, knee, degree = reading
        cells = {1: "pooled", 0: "pixels"}.get(grid, f"{grid}×{grid}")
        rule = "interpolated" if knee == "interpolate" else f"polynomial {degree}"
        means = {m: sum(r["macs_reduction"]) / len(r["macs_reduction"]) for m, r in found.items()}
        rows.append(
            [
                f"**{cells}** (default)" if reading == DEFAULT else cells,
                at,
                space,
                mss,
                rule,
                *(f"{means[m]:.2f}×" if m in means else "–" for m in ("resnet56", "vgg16_bn", "resnet20")),
                f"{100 * fallback:.0f} %",
                f"{ranked['distance']:.2f}",
            ]
        )
    head = ["values", "read at", "space", "silhouette", "knee", "ResNet-56", "VGG-16", "ResNet-20"]
    published = content["published"]
    note = (
        f"\n\nMACs reduction at the knee, one-shot, mean of {seeds} seeds, `{content['data']}`. Published on "
        f"CIFAR-10: ResNet-56 {published['resnet56']}×, VGG-16 {published['vgg16_bn']}×. *Fallback*: groups "
        "in which Kneedle found no knee. *Distance*: mean |ln(ours / published)|."
    )
    return table([*head, "fallback", "distance"], rows[:16]) + note + versions(content)


def of_speed(name: str) -> Callable[[], str]:
    return lambda: speed_table.TABLES[name](load("speed"))


def measured(name: str) -> bool:
    """Whether the results of a table are there."""
    wanted = {
        "bundled": (),
        "training": ("training_1000x2",),
        "text": ("text",),
        "ingredients": ("quality_resnet20", "quality_vgg16_bn"),
    }.get(name, ("speed",) if name in speed_table.TABLES else (name,))
    if not all((RESULTS / f"{n}.json").is_file() for n in wanted):
        return False
    part = speed_table.NEEDED.get(name)
    return part is None or part in load("speed")


def bundled() -> str:
    rows = []
    for name in bundled_names():
        folder = BUNDLED / name.removeprefix("coprune:")
        notes = describe(folder).notes
        stage = json.loads((folder / "result.json").read_text())["stages"][0]
        rows.append(
            [
                f"`{name}`",
                f"{100 * stage['value']:.2f} %",
                f"{stage['macs'] / 1e6:.2f} M",
                f"{stage['params']:,}",
                f"`{notes['command']}`",
            ]
        )
    return table(["name", "top-1, whole test set", "MACs", "parameters", "made by"], rows)


def zoo() -> str:
    """A row a family of models, and a line a reason."""
    content = load("zoo")
    families: dict[str, list[dict]] = {}
    for entry in content["models"]:
        families.setdefault(entry["family"], []).append(entry)
    rows = []
    for family, entries in sorted(families.items()):
        passed = [e for e in entries if e["status"] == "passed"]
        counts = {s: sum(e["status"] == s for e in entries) for s in ("passed", "refused", "failed")}
        coupled = [e["groups"]["coupled"] for e in passed]
        share = [100 * e["macs"] for e in passed]
        rows.append(
            [
                family,
                *(str(counts[s] or "–") for s in counts),
                f"{min(coupled)} to {max(coupled)}" if coupled else "–",
                f"{min(share):.1f} to {max(share):.1f} %" if share else "–",
                f"{max(e['difference'] for e in passed):.0e}" if passed else "–",
            ]
        )
    said = [
        f"- {e['status']}: `{e['model']}`: {e['reason']}"
        for e in content["models"]
        if e["status"] != "passed"
    ]
    head = ["family", "passed", "refused", "failed", "coupled groups", "MACs kept", "cut − masked"]
    note = (
        f"\n\n{sum(e['status'] == 'passed' for e in content['models'])} of {len(content['models'])} models "
        f"pass. Classification models of torchvision and timm, random weights, "
        f"`magnitude` to {100 * content['keep_macs']:.0f} % of the MACs with all kinds of units. *Passed*: "
        "the cut model computes what the masked one does (largest difference, in proportion to the "
        "spread of outputs), gradients reach all of its weights, and a fresh process loads it with equal "
        "outputs.\n\n"
    )
    return table(head, rows) + note + "\n".join(said) + versions(content)


TABLES: dict[str, Callable[[], str]] = {
    "cosep_compare": compare("cosep_compare"),
    "bundled": bundled,
    "cosep_variants": cosep_variants,
    **{name: of_speed(name) for name in speed_table.TABLES},
    "quality_resnet20": quality("quality_resnet20"),
    "quality_resnet20_coupled": quality("quality_resnet20_coupled"),
    "quality_vgg16_bn": quality("quality_vgg16_bn"),
    "max_drop": max_drop,
    "ingredients": ingredients,
    "ablation": ablation,
    "training": training,
    "text": text,
    "zoo": zoo,
}


def render(text: str) -> str:
    """Replace every marked table whose results exist."""

    def one(match: re.Match) -> str:
        name = match.group(1)
        if not measured(name):
            return match.group(0)
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", one, text, flags=re.DOTALL)


def main() -> None:
    for page in PAGES:
        before = page.read_text()
        after = render(before)
        if after != before:
            page.write_text(after)
            print(page.relative_to(ROOT))
    if measured("speed_growth"):
        speed_table.plot(load("speed"), ROOT / "docs" / "speed.svg")


if __name__ == "__main__":
    main()
