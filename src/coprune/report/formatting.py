"""Figures and sentences as people read them. A space before %, a true minus, a no-break space."""

from __future__ import annotations

import math

from coprune.plan import ELSEWHERE, Plan
from coprune.recovery.registry import RECOVERIES as KNOWN
from coprune.result import Code, Judged, Latency, Result, Stage

METHODS = {
    "bn_scale": "Batch-norm scale",
    "cahp": "CAHP",
    "complementary": "Complementary pruning",
    "cosep": "CoSeP",
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
}
STAGES = {"base": "Base", "pruned": "Pruned", "recovered": "Recovered", "finetuned": "Fine-tuned"}
_AFTER = {
    "base": "before pruning",
    "pruned": "right after surgery, without recovery",
    "recovered": "after recovery without training",
    "finetuned": "after fine-tuning",
}
RECOVERIES = {recovery.name: recovery.label for recovery in reversed(KNOWN.values())}
ENGINES = {"onnxruntime": "ONNX Runtime"}
JOINT = ("cahp", "head_magnitude", "last_layers", "medoid", "michel")
"""Methods over the heads of all layers at once; told by name where a plan does not say so itself."""
_KINDS = {"inner": "channels", "coupled": "channels", "heads": "heads", "neurons": "neurons"}
_SCORES = {
    "cahp": "salience",
    "head_magnitude": "norm",
    "last_layers": "number of layers behind it",
    "michel": "sensitivity",
}
NB = "\u00a0"


def method(name: str) -> str:
    """A method's name as its authors write it; an unknown name as it is."""
    return METHODS.get(name, name)


def units(plan: Plan) -> str:
    """What the plan removes: ``channels``, ``heads`` or ``neurons``, and ``units`` for a mixture."""
    # Plans that do not say of what kind their groups are: some methods and one budget know heads only.
    only_heads = plan.method in JOINT or plan.budget.startswith("keep_heads=")
    by_name = "heads" if only_heads else "channels"
    found = {_KINDS.get(g.kind, by_name) for g in plan.groups} or {by_name}
    return found.pop() if len(found) == 1 else "units"


def joint(plan: Plan) -> bool:
    """Whether the groups were decided together."""
    return plan.joint or plan.method in JOINT


def score(method: str) -> str:
    """What a method's score is called."""
    return _SCORES.get(method, "score")


def one(plural: str) -> str:
    """``channels`` → ``channel``."""
    return plural.removesuffix("s")


def recovery(name: str) -> str:
    """What was done between surgery and training; an unknown name as it is."""
    return RECOVERIES.get(name, name)


def enumeration(parts: list[str]) -> str:
    """``3``, ``3 and 9``, ``3, 9 and 12``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def share(fraction: float) -> str:
    """A share in whole per cents; finer where rounding would reach 90 or 100 that it does not have."""
    near = any(round(100 * fraction) == limit and 100 * fraction < limit - 1e-7 for limit in (90, 100))
    return f"{math.floor(1000 * fraction + 1e-6) / 10:.1f}{NB}%" if near else percent(fraction, 0)


def percent(fraction: float, digits: int = 1) -> str:
    """``0.4987`` → ``49.9 %``."""
    return f"{100 * fraction:.{digits}f}{NB}%"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, signed: ``−0.78 points``."""
    return f"{100 * difference:+.2f}{NB}points".replace("-", "−")


def lost(points: float, low: float | None = None, high: float | None = None) -> str:
    """Points lost, with an interval where there is one: ``0.21 (−0.12 to 0.55)``; a gain is negative."""
    text = f"{points:.2f}" + (f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else "")
    return text.replace("-0.00", "0.00").replace("-", "−")


def count(number: float) -> str:
    """``40550000`` → ``40.55 M``; exact below ten thousand."""
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(number) >= scale:
            return f"{number / scale:.2f}{NB}{letter}"
    return f"{number / 1e3:.1f}{NB}k" if abs(number) >= 1e4 else f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes in decimal units: ``1093632`` → ``1.09 MB``."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= scale:
            return f"{number / scale:.2f}{NB}{unit}"
    return f"{number:.0f}{NB}B"


def milliseconds(number: float) -> str:
    """Three significant digits: ``1.84 ms``."""
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}{NB}ms"


def duration(seconds: float) -> str:
    """``200`` → ``3 min 20 s``."""
    if seconds < 60:
        return f"{seconds:.1f}{NB}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NB}h {minutes}{NB}min" if hours else f"{minutes}{NB}min {rest}{NB}s"


def times(ratio: float) -> str:
    """``1.62`` → ``1.62×``."""
    return f"{ratio:.2f}×"


def speed(ratio: float) -> str:
    """A ratio base/pruned of times, in words: faster, slower or neither."""
    if 0.98 <= ratio <= 1.02:
        return f"no faster ({times(ratio)})"
    return f"{times(ratio)} faster" if ratio > 1 else f"slower ({times(ratio)} the speed)"


def sped(latency: Latency) -> str:
    """What a measured ratio says, in words; with its interval where it cannot be told."""
    if latency.told and (latency.differs or latency.ratio_interval is None):
        return speed(latency.ratio)
    low, high = latency.ratio_interval or (latency.ratio, latency.ratio)
    found = f"({low:.2f}–{times(high)})"
    return f"no difference can be told {found}" if low <= 1 <= high else f"how much cannot be told {found}"


def place(latency: Latency) -> str:
    """Where a time was taken: ``batch 1, 2 threads``; the engine only where it is not PyTorch."""
    place = f"batch {latency.batch}, {latency.threads} thread{'' if latency.threads == 1 else 's'}"
    return place if latency.engine == "torch" else f"{place}, {ENGINES.get(latency.engine, latency.engine)}"


def judged(judged: Judged) -> str:
    """What decided, on how many samples of what, and what they said: ``at most 2 points lost …``."""
    of = f"{judged.samples:,} {judged.on}" + (" samples" if judged.on == "validation" else "")
    lost_there = f"{lost(judged.found, *(judged.interval or (None, None)))} points lost"
    asked = {
        "max_drop": f"at most {judged.allowed or 0:g} point{'' if judged.allowed == 1 else 's'} lost",
        "knee": "the size",
    }.get(judged.decision, f"{judged.decision} against the model before it")
    return f"{asked}, on {of}: {lost_there}"


def held_out(result: Result) -> str:
    """The last accuracy with how many samples gave it and its interval; nothing where nobody noted them."""
    last = last_stage(result) or result.stage("base")
    if last is None or last.samples is None or last.interval is None:
        return ""
    low, high = last.interval
    return f"{percent(last.value, 2)} ({100 * low:.2f} to {100 * high:.2f}) on {last.samples:,} samples"


def last_stage(result: Result) -> Stage | None:
    """The last thing that was done to the model and measured, the base itself left out."""
    return next((s for n in ("finetuned", "recovered", "pruned") if (s := result.stage(n))), None)


def headline(plan: Plan, result: Result) -> str:
    """One sentence: what was done, and what it cost."""
    kept, total = plan.units["kept"], plan.units["total"]
    done = f"{method(plan.method)} kept {kept:,} of {total:,} {units(plan)}"
    if plan.method == ELSEWHERE:
        done = f"Pruned elsewhere to {kept:,} of {total:,} {units(plan)}" if total else "Pruned elsewhere"
    base, last = result.stage("base"), last_stage(result)
    if last is None:
        return f"{done}; nothing has been measured after it."
    if base is None:
        return f"{done}: accuracy {percent(last.value, 2)} {_AFTER[last.name]}; the base was not measured."
    gone = 1 - last.macs / base.macs if base.macs else 0.0
    after = _AFTER[last.name]
    codes = {note.code for note in result.notes}
    together = plan.settings.get("recovery") == "reconstruction" and Code.TAKEN_BACK not in codes
    if last.name == "recovered" and together:
        after = "after reconstruction without labels"
    if Code.HANDED_BACK in codes:
        after = "as it came, since recovery would have done harm"
    if last.name in ("pruned", "recovered") and plan.settings.get("between", {}).get("epochs"):
        after = "after training between the cuts" + (" and recovery" if last.name == "recovered" else "")
    return (
        f"{done}: {percent(gone)} of the MACs are gone, accuracy {percent(base.value, 2)}{NB}→ "
        f"{percent(last.value, 2)} ({points(last.value - base.value)}) {after}."
        + (f" That is more than the {_allowed(result)} points allowed." if Code.MORE_LOST in codes else "")
    )


def _allowed(result: Result) -> str:
    return "?" if result.judged is None or result.judged.allowed is None else f"{result.judged.allowed:g}"


def knees(plan: Plan) -> str | None:
    """What the knees alone would have kept, against what was kept; None for methods without a knee."""
    with_knee = [g for g in plan.groups if g.knee]
    if not with_knee:
        return None
    if joint(plan):
        return _one_knee(plan)
    alone = sum(g.knee.k for g in with_knee if g.knee)
    kept = sum(len(g.kept) for g in with_knee)
    total = sum(g.size for g in with_knee)
    unread = sum(1 for g in with_knee if g.knee and g.knee.fallback)
    if alone == kept and all(g.knee and g.knee.k == len(g.kept) for g in with_knee):
        text = f"The knees decided: {kept:,} of {total:,} units stay."
    else:
        text = (
            f"The knees alone would have kept {alone:,} of {total:,} units; "
            f"the budget ({plan.budget}) kept {kept:,}."
        )
    if unread:
        text += f" In {unread} of {len(with_knee)} groups the curve had no knee and a fallback was used."
    return text


def _one_knee(plan: Plan) -> str:
    """The knee of all groups together; a layer that it would empty keeps a head beyond it."""
    knee = next(g.knee for g in plan.groups if g.knee)
    kept, total, what = plan.units["kept"], plan.units["total"], units(plan)
    if plan.budget == "knee" or kept == knee.k:
        text = f"The knee decided: {min(knee.k, kept):,} of {total:,} {what} stay"
        more = kept - knee.k
        text += f", and {more:,} more, so that no layer loses all of its {what}." if more > 0 else "."
    else:
        text = (
            f"The knee alone would have kept {knee.k:,} of {total:,} {what}; "
            f"the budget ({plan.budget}) kept {kept:,}."
        )
    return text + (" The curve had no knee of its own, and a fallback was used." if knee.fallback else "")


def promise(result: Result) -> str | None:
    """Promised (MACs) against measured (time), in one or two sentences; None when no time was taken."""
    base, last = result.stage("base"), last_stage(result)
    if not result.latency or base is None or last is None or not last.macs:
        return None
    promised = base.macs / last.macs
    low = min(result.latency, key=lambda t: t.ratio)
    high = max(result.latency, key=lambda t: t.ratio)
    if low is high:
        measured = f"{sped(low)} at {place(low)}"
    elif not (low.differs and high.differs) and low.ratio_interval:
        measured = f"{sped(low)} at {place(low)}, {sped(high)} at {place(high)}"
    else:
        measured = f"from {sped(low)} at {place(low)} to {sped(high)} at {place(high)}"
    if not (low.told and high.told):
        verdict = "The clock was too unsteady to say whether it gives what the MACs promise."
    elif high.ratio < 0.95 * promised:
        verdict = "The clock gives less than the MACs promise."
    elif low.ratio >= 0.95 * promised:
        verdict = "The clock gives what the MACs promise."
    else:
        verdict = "Whether the clock gives what the MACs promise depends on where it is read."
    return f"Promised: {times(promised)} fewer MACs. Measured: {measured}. {verdict}"
