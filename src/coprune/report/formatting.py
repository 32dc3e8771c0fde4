"""Figures and names as people read them. A space before %, a true minus, a no-break space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from coprune.plan import Plan
from coprune.recovery.registry import RECOVERIES as KNOWN

METHODS = {
    "bn_scale": "Batch-norm scale",
    "cahp": "CAHP",
    "complementary": "Complementary pruning",
    "cosep": "CoSeP",
    "flap": "FLAP",
    "fpgm": "FPGM",
    "head_magnitude": "Head magnitude",
    "hessian": "Hessian ranking",
    "lamp": "LAMP",
    "last_layers": "Last layers first",
    "magnitude": "Magnitude (L1)",
    "magnitude_l2": "Magnitude (L2)",
    "medoid": "Medoid choice",
    "michel": "Michel head ranking",
    "random": "Random choice",
    "taylor": "Taylor ranking",
    "wanda_sp": "Wanda-sp",
}
STAGES = {"base": "Base", "pruned": "Pruned", "recovered": "Recovered", "finetuned": "Fine-tuned"}
RECOVERIES = {recovery.name: recovery.label for recovery in reversed(KNOWN.values())}
JOINT = {
    "cahp": "salience",
    "head_magnitude": "norm",
    "last_layers": "number of layers behind it",
    "medoid": "score",
    "michel": "sensitivity",
}
"""Methods over the heads of all layers at once, and what their scores are called."""
_KINDS = {"inner": "channels", "coupled": "channels", "heads": "heads", "neurons": "neurons"}
NB = "\u00a0"


def method(name: str) -> str:
    """A method's name as its authors write it; an unknown name as it is."""
    return METHODS.get(name, name)


def recovery(name: str) -> str:
    """What was done between surgery and training; an unknown name as it is."""
    return RECOVERIES.get(name, name)


def completed(plan: Plan) -> Plan:
    """The plan with ``joint`` and the groups' ``kind``, which plans of earlier versions do not state."""
    only_heads = plan.method in JOINT or plan.budget.startswith("keep_heads=")
    kind = "heads" if only_heads else "inner"
    groups = (g if g.kind else g.model_copy(update={"kind": kind}) for g in plan.groups)
    return plan.model_copy(update={"joint": plan.joint or plan.method in JOINT, "groups": tuple(groups)})


def units(plan: Plan) -> str:
    """What a :func:`completed` plan removes: ``channels``, ``heads`` or ``neurons``; else ``units``."""
    found = {_KINDS.get(g.kind, "channels") for g in plan.groups} or {"channels"}
    return found.pop() if len(found) == 1 else "units"


def one(plural: str) -> str:
    """``channels`` → ``channel``."""
    return plural.removesuffix("s")


def counted(number: int, what: str) -> str:
    """``1 point``, ``2 points``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def capital(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def enumeration(parts: Sequence[str]) -> str:
    """``3``, ``3 and 9``, ``3, 9 and 12``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def first_few(parts: Sequence[str], most: int) -> str:
    """The first so many, and how many more there are."""
    more = len(parts) - most
    return ", ".join(parts[:most]) + (f" and {more:,} more" if more > 0 else "")


def ranges(numbers: Sequence[int]) -> str:
    """``3, 4, 5, 9`` → ``3–5, 9``, of sorted numbers; a long list ends in how many more there are."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda at: at[1] - at[0])]
    parts = [p for r in runs for p in ([f"{r[0]}–{r[-1]}"] if len(r) > 2 else map(str, r))]
    return first_few(parts, 40)


def minus(text: str) -> str:
    """The text with true minus signs."""
    return text.replace("-", "−")


def percent(fraction: float, digits: int = 1) -> str:
    """``0.4987`` → ``49.9 %``."""
    return f"{100 * fraction:.{digits}f}{NB}%"


def share(fraction: float) -> str:
    """A share in whole per cents; finer where rounding would reach 90 or 100 that it does not have."""
    near = any(round(100 * fraction) == limit and 100 * fraction < limit - 1e-7 for limit in (90, 100))
    return percent(math.floor(1000 * fraction + 1e-6) / 1000 if near else fraction, int(near))


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, signed: ``−0.78 points``."""
    return minus(f"{100 * difference:+.2f}{NB}points")


def si(number: float, unit: str = "") -> str:
    """``40550000`` → ``40.55 M``, ``(1093632, "B")`` → ``1.09 MB``; without a unit exact below 10,000."""
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= (scale if unit else max(scale, 1e4)):
            return f"{number / scale:.2f}{NB}{letter}{unit}"
    return f"{number:,.0f}{NB}{unit}".rstrip(NB)


def milliseconds(number: float) -> str:
    """Three significant digits: ``1.84 ms``."""
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}{NB}ms"


def duration(seconds: float) -> str:
    """``200`` → ``3 min 20 s``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NB}min {rest}{NB}s" if minutes else f"{seconds:.1f}{NB}s"
    return f"{minutes // 60}{NB}h {minutes % 60}{NB}min"


def times(ratio: float) -> str:
    """``1.62`` → ``1.62×``."""
    return f"{ratio:.2f}×"
