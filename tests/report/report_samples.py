"""Plans, results and comparisons like real ones, small, without torch: the same every time."""

from __future__ import annotations

import math
import random

from coprune.plan import GroupDecision, Knee, Member, Plan, Prediction, Skipped
from coprune.result import Latency, Result, Stage

NINE = [(f"layer{1 + i // 3}.{i % 3}.conv1", 16 << (i // 3)) for i in range(9)]
DATA = {"name": "fashion-mnist", "train": "sha256:5f1c0e0d", "test": "sha256:88a0b7e1"}


def members(name: str) -> tuple[Member, ...]:
    return (
        Member(layer=name, role="producer"),
        Member(layer=name.replace("conv1", "bn1"), role="carrier"),
        Member(layer=name.replace("conv1", "conv2"), role="consumer"),
    )


def clustered(name: str, size: int, *, keep: float = 0.5, seed: int = 0) -> GroupDecision:
    """A group as CoSeP decides it: medoids of clusters stay; the knee is lower than the budget."""
    rng = random.Random(f"{name}{seed}")
    kept_count = max(2, round(size * keep))
    centres = [(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(kept_count)]
    medoids = sorted(rng.sample(range(size), kept_count))
    clusters = [0] * size
    for unit in range(size):
        clusters[unit] = medoids.index(unit) if unit in medoids else int(kept_count * rng.random() ** 2)
    position = tuple(
        (centres[c][0], centres[c][1])
        if u in medoids
        else (centres[c][0] + rng.gauss(0, 0.1), centres[c][1] + rng.gauss(0, 0.1))
        for u, c in enumerate(clusters)
    )
    curve = tuple((k, 1 - 0.75 * math.exp(-4 * k / size) + 0.008 * rng.random()) for k in range(2, size))
    knee = max(2, round(size * 0.3))
    fallback = "half of the units stay, as no point stands out" if name.startswith("layer3.2") else None
    return GroupDecision(
        name=name,
        members=members(name),
        size=size,
        kept=tuple(medoids),
        reason="The medoid of every cluster stays: it says what its cluster says.",
        curve=curve,
        curve_name="mean simplified silhouette",
        knee=Knee(k=knee, rule="kneedle, polynomial of degree 2, S=1", fallback=fallback),
        clusters=tuple(clusters),
        medoids=tuple(medoids),
        position=position,
    )


def ranked(name: str, size: int, *, keep: float = 0.5) -> GroupDecision:
    """A group as magnitude decides it: the highest scores stay."""
    rng = random.Random(name)
    score = tuple(rng.lognormvariate(0, 0.5) for _ in range(size))
    kept = sorted(range(size), key=lambda u: -score[u])[: max(1, round(size * keep))]
    reason = "The greatest L1 norms of the filters stay."
    return GroupDecision(
        name=name, members=members(name), size=size, kept=tuple(sorted(kept)), reason=reason, score=score
    )


def complementary(name: str, size: int, *, keep: float = 0.5, listed: int = 5) -> GroupDecision:
    """A group as complementary pruning decides it: what went is said by a mix of what stays."""
    rng = random.Random(name)
    kept = sorted(rng.sample(range(size), max(1, round(size * keep))))
    took = []
    for unit in sorted(set(range(size)) - set(kept)):
        explained = 1 - 0.6 * rng.random() ** 2
        weights = sorted((rng.random() ** 3 for _ in range(min(listed, len(kept)))), reverse=True)
        by = zip(rng.sample(kept, len(weights)), weights, strict=True)
        parts = tuple((u, explained * w / sum(weights)) for u, w in by)
        took.append(Prediction(unit=unit, explained=explained, by=parts))
    return GroupDecision(
        name=name,
        members=members(name),
        size=size,
        kept=tuple(kept),
        reason="removed one after the other: always the one the rest says best",
        curve=tuple((k, math.exp(-5 * k / size) - math.exp(-5)) for k in range(size, 0, -1)),
        curve_name="reconstruction error",
        predicted=tuple(took),
    )


# As a search writes it since it takes intervals: the base first, then the smallest, then bisection.
PROBES = (
    {"macs": 1.0, "value": 0.94, "ok": True, "drop": 0.0, "low": 0.0, "high": 0.0, "chosen": False},
    {"macs": 0.03, "value": 0.102, "ok": False, "drop": 83.8, "low": 81.1, "high": 86.5, "chosen": False},
    {"macs": 0.5, "value": 0.925, "ok": False, "drop": 1.5, "low": 0.9, "high": 2.1, "chosen": False},
    {"macs": 0.75, "value": 0.941, "ok": True, "drop": -0.1, "low": -0.5, "high": 0.3, "chosen": False},
    {"macs": 0.63, "value": 0.938, "ok": True, "drop": 0.2, "low": -0.2, "high": 0.7, "chosen": True},
)


def plan(groups: list[GroupDecision] | None = None, *, method: str = "cosep", **changes: object) -> Plan:
    values: dict = {
        "schema": 1,
        "method": method,
        "settings": {"grid": 4, "mss": "paper", "distance": "js", "coverage": None},
        "budget": "keep_macs=0.5",
        "seed": 0,
        "model": "sha256:0c6f2a9b41d7",
        "data": DATA,
        "groups": tuple(groups if groups is not None else [clustered(n, s) for n, s in NINE]),
        "skipped": (
            Skipped(layer="conv1", reason="the first layer is left alone"),
            Skipped(layer="layer1.0.conv2", reason="ends in a residual sum with 3 other layers"),
            Skipped(layer="fc", reason="the last layer is left alone"),
        ),
    }
    return Plan(**{**values, **changes})


def result(
    decided: Plan,
    stages: tuple[str, ...] = ("base", "pruned", "recovered", "finetuned"),
    *,
    timed: bool = True,
    searched: bool = False,
    **changes: object,
) -> Result:
    values = {"base": 0.9384, "pruned": 0.2172, "recovered": 0.9121, "finetuned": 0.9306}
    made = []
    for name in stages:
        small = name != "base"
        made.append(
            Stage(
                name=name,
                value=values[name],
                macs=20_240_000 if small else 40_550_000,
                params=139_102 if small else 270_896,
                calibration=values[name] + 0.01,
                bytes=561_320 if small else 1_093_632,
                peak_memory=188_416 if small else 262_144,
            )
        )
    latency = []
    for batch, threads, base, ratio in ((1, 1, 2.31, 1.38), (1, 2, 1.71, 1.21), (64, 2, 61.2, 1.83)):
        pruned = base / ratio
        latency.append(
            Latency(
                engine="torch",
                device="cpu",
                threads=threads,
                batch=batch,
                base_ms=base,
                pruned_ms=pruned,
                base_spread_ms=(0.95 * base, 1.12 * base),
                pruned_spread_ms=(0.96 * pruned, 1.2 * pruned),
                ratio=ratio,
                repeats=50,
            )
        )
    search = ((1.0, 0.94), (0.5, 0.931), (0.25, 0.902), (0.37, 0.921), (0.44, 0.934), (0.41, 0.9285))
    all_values: dict = {
        "schema": 1,
        "method": decided.method,
        "seed": 0,
        "units": decided.units,
        "stages": tuple(made),
        "latency": tuple(latency) if timed else (),
        "seconds": {"profile": 21.4, "select": 3.2, "surgery": 0.4, "recover": 35.0, "finetune": 264.0},
        "versions": {"coprune": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "search": tuple({"macs": m, "value": v, "ok": v >= 0.93} for m, v in search) if searched else (),
        "notes": ("Calibration used 1,000 of 60,000 training images, 100 of every class.",),
    }
    return Result(**{**all_values, **changes})


def comparison() -> dict:
    """Five methods, three budgets, three seeds; one method also without recovery."""
    rng = random.Random(3)
    level = {"complementary": 0.0, "cosep": 0.4, "taylor": 0.7, "magnitude": 1.0, "random": 1.5}
    rows = []
    for budget in ("knee", 0.5, 0.25):
        ratio = {"knee": 0.18, 0.5: 0.5, 0.25: 0.25}[budget]
        for method, loss in level.items():
            for recovery in ("least-squares", "none") if method == "magnitude" else ("least-squares",):
                if budget == "knee" and method != "cosep":
                    continue
                for seed in range(3):
                    lost = (0.004 + 0.012 * loss) / ratio**0.8 * rng.uniform(0.8, 1.2)
                    plain = recovery == "none"
                    rows.append(
                        {
                            "method": method,
                            "budget": budget,
                            "seed": seed,
                            "macs_ratio": ratio * rng.uniform(0.985, 1.0),
                            "pruned": 0.4 * ratio + 0.1 * rng.random(),
                            "recovered": None if plain else 0.93 - 2 * lost,
                            "finetuned": 0.935 - lost * (1.3 if plain else 0.6),
                            "recovery": recovery,
                        }
                    )
    return {"schema": 1, "base": {"value": 0.9384, "macs": 40_550_000, "params": 270_896}, "rows": rows}
