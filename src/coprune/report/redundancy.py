"""Who says what the removed units said: what a plan recorded about it, in sentences and for the script.

Shares are R²: 0.94 of a unit's variance is a linear mix of the kept units. On the page they are whole
per mille, which is finer than anybody reads and a third of the file.
"""

from __future__ import annotations

import math

from coprune.plan import GroupDecision, Plan, Prediction
from coprune.report import formatting as words

WELL = 0.9
"""From this share on a removed unit counts as said by the others."""

_SMALLEST = 0.01
_MOST = 12


def recorded(group: GroupDecision) -> list[Prediction]:
    """The group's entries that can be shown, the best explained unit first.

    A foreign plan may name units that do not exist, that stayed or that it named before: such entries
    are left out, and so are parts of units that went, below 1 %, or beyond the twelve foremost of a
    unit; all of them still count in ``explained``.
    """
    kept = set(group.kept)
    found: dict[int, Prediction] = {}
    for entry in group.predicted:
        if entry.unit < group.size and entry.unit not in kept:
            found.setdefault(entry.unit, entry.model_copy(update={"by": tuple(_foremost(entry, kept))}))
    return sorted(found.values(), key=lambda e: (-e.explained, e.unit))


def _foremost(entry: Prediction, kept: set[int]) -> list[tuple[int, float]]:
    parts = {u: share for u, share in entry.by if u in kept and _SMALLEST <= share <= 1}
    return sorted(parts.items(), key=lambda p: (-p[1], p[0]))[:_MOST]


def view(group: GroupDecision) -> list[list[int]]:
    """For the page's script, a row a removed unit: unit, explained, then kept unit and part in turn.

    Shares in per mille, rounded down for ``explained``: 89.96 % is not 90 %.
    """
    return [
        [e.unit, math.floor(1000 * e.explained + 1e-6), *(n for u, s in e.by for n in (u, round(1000 * s)))]
        for e in recorded(group)
    ]


def well_explained(group: GroupDecision) -> int:
    """How many removed units the kept ones say at least 90 % of."""
    return sum(e.explained >= WELL for e in recorded(group))


def about_group(group: GroupDecision, unit: str) -> str:
    """The summary of one group; empty when the plan says nothing about it.

    Args:
        group: the decision.
        unit: one of what it removes, ``channel`` or ``head``.

    Example:
        ``The kept channels say at least 90 % of what 5 of the 8 removed ones said; least explained:
        channel 5 (41 %), 12 (58 %) and 3 (61 %).``
    """
    entries = recorded(group)
    if not entries:
        return ""
    gone = group.size - len(group.kept)
    if gone == 1:
        return f"The kept {unit}s say {words.share(entries[0].explained)} of what the removed one said."
    # The least explained are those worth a look: up to three that are not well explained, else one.
    worst = [e for e in reversed(entries) if e.explained < WELL][:3] or entries[-1:]
    listed = words.enumeration([f"{e.unit} ({words.share(e.explained)})" for e in worst])
    text = f"{_count(well_explained(group), gone, unit + 's')}; least explained: {unit} {listed}."
    unknown = gone - len(entries)
    return text + (f" About {unknown:,} of them the plan does not say it." if unknown else "")


def about_plan(plan: Plan) -> str | None:
    """One sentence over all groups; None when the plan says nothing about it."""
    known = [(group, entry) for group in plan.groups for entry in recorded(group)]
    if not known:
        return None
    units = words.units(plan)
    well = sum(entry.explained >= WELL for _, entry in known)
    group, entry = min(known, key=lambda pair: pair[1].explained)
    least = f"{words.one(units)} {entry.unit} of {group.name} ({words.share(entry.explained)})"
    return f"{_count(well, len(known), units)}; least explained: {least}."


def _count(well: int, gone: int, units: str) -> str:
    bound = f"90{words.NB}%"
    if not well:
        return f"The kept {units} say less than {bound} of what any of the {gone:,} removed ones said"
    which = f"each of the {gone:,}" if well == gone else f"{well:,} of the {gone:,}"
    return f"The kept {units} say at least {bound} of what {which} removed ones said"
