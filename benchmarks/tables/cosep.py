"""CoSeP: against baselines at its knee, and its readings; the bundled base model."""

from __future__ import annotations

import json
from collections.abc import Callable

from coprune.methods.cosep import CoSePSettings
from coprune.models.names import BUNDLED, bundled_names
from coprune.report import summarise
from coprune.store.model import describe
from tables.shared import load, points, table, versions

GROUPS = {"resnet20": 9, "resnet56": 27, "vgg16_bn": 12}


READING = ("grid", "at", "space", "mss", "knee", "knee_degree")


DEFAULT = tuple(getattr(CoSePSettings(), name) for name in READING)


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
