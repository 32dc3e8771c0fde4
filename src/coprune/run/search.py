"""``--max-drop``: the smallest model, along a method's own order, that keeps its accuracy.

The curve of accuracy against MACs is probed by bisection. Every probe is cut and recovered with one
half of the calibration samples and judged on the other half; held-out samples are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coprune.plan import GroupDecision

PROBES = 7


@dataclass(frozen=True)
class Probe:
    """One point of the curve: share of MACs, accuracy there, and whether the loss is allowed."""

    macs: float
    value: float
    ok: bool

    def as_json(self) -> dict[str, float | bool]:
        """For ``result.json``."""
        return {"macs": round(self.macs, 6), "value": self.value, "ok": self.ok}


@dataclass(frozen=True)
class Found:
    """The smallest accepted model's decisions, and every probe in the order it was made."""

    decisions: tuple[GroupDecision, ...]
    probes: tuple[Probe, ...]


def search_budget(
    least: float,
    base: float,
    max_drop: float,
    *,
    decide: Callable[[float], tuple[float, tuple[GroupDecision, ...]]],
    judge: Callable[[tuple[GroupDecision, ...]], float],
    probes: int = PROBES,
) -> Found:
    """Bisect the share of MACs.

    Accuracy along the order need not fall steadily, so only probes that were really measured are
    ever returned: the smallest accepted one. Keeping everything loses nothing and is where the
    search starts.

    Args:
        least: the smallest share of MACs that the groups allow.
        base: accuracy of the unpruned model on the judging half, a fraction.
        max_drop: allowed loss in points.
        decide: share of MACs → the share really reached, and the decisions for it.
        judge: decisions → accuracy on the judging half, recovered, a fraction.
        probes: how many models to try.
    """
    _, everything = decide(1.0)
    best, tried = everything, [Probe(1.0, base, True)]
    low, high = least, 1.0
    for step in range(probes):
        # The smallest model first: when it is good enough, there is nothing to search.
        target = low if step == 0 else (low + high) / 2
        reached, decisions = decide(target)
        value = judge(decisions)
        # Accuracies are counts over samples; half a sample absorbs the division's rounding.
        ok = (base - value) * 100 <= max_drop + 1e-9
        tried.append(Probe(reached, value, ok))
        if ok:
            best, high = decisions, target
            if step == 0:
                break
        else:
            low = target
    return Found(best, tuple(tried))
