"""What a run came to, in sentences: the page's headline, the terminal's last lines."""

from __future__ import annotations

from coprune.plan import ELSEWHERE, Plan
from coprune.report.formatting import completed, counted, method, percent, times, units
from coprune.report.metric import MetricWords, of, of_run
from coprune.result import Code, Judged, Latency, Result, Stage

ENGINES = {"onnxruntime": "ONNX Runtime"}
_AFTER = {
    "pruned": "right after surgery, without recovery",
    "recovered": "after recovery without training",
    "finetuned": "after fine-tuning",
}
_TOGETHER = "after reconstruction without labels"


def last_stage(result: Result) -> Stage | None:
    """The last thing that was done to the model and measured, the base itself left out."""
    return next((s for n in reversed(_AFTER) if (s := result.stage(n))), None)


def headline(plan: Plan, result: Result) -> str:
    """One sentence: what was done, and what it cost."""
    plan = completed(plan)
    kept, total = plan.units["kept"], plan.units["total"]
    done = f"{method(plan.method)} kept {kept:,} of {total:,} {units(plan)}"
    if plan.method == ELSEWHERE:
        done = f"Pruned elsewhere to {kept:,} of {total:,} {units(plan)}" if total else "Pruned elsewhere"
    base, last, metric = result.stage("base"), last_stage(result), of_run(plan, result)
    if last is None:
        return f"{done}; nothing has been measured after it."
    outcome = metric.outcome(last.value)
    if base is None:
        return f"{done}: {outcome} {_AFTER[last.name]}; the base was not measured."
    gone = 1 - last.macs / base.macs if base.macs else 0.0
    sentence = f"{done}: {percent(gone)} of the MACs are gone, {outcome} {_after(plan, result, last)}."
    if any(note.code == Code.MORE_LOST for note in result.notes):
        allowed = result.judged and result.judged.allowed
        limit = metric.of_loss("?" if allowed is None else f"{allowed:.4g}")
        sentence += f" That is more than the {limit} allowed."
    return sentence


def _after(plan: Plan, result: Result, last: Stage) -> str:
    codes, settings = {note.code for note in result.notes}, plan.settings
    if last.name in ("pruned", "recovered") and settings.get("between", {}).get("epochs"):
        return "after training between the cuts" + (" and recovery" if last.name == "recovered" else "")
    if Code.HANDED_BACK in codes:
        return "as it came, since recovery would have done harm"
    together = settings.get("recovery") == "reconstruction" and Code.TAKEN_BACK not in codes
    return _TOGETHER if last.name == "recovered" and together else _AFTER[last.name]


def knees(plan: Plan) -> str | None:
    """What the knees alone would have kept, against what was kept; None for methods without a knee."""
    plan = completed(plan)
    if not plan.knees:
        return None
    of = [g for g in plan.groups if plan.joint or g.knee]
    asked, kept, total = sum(k.k for k in plan.knees), sum(len(g.kept) for g in of), sum(g.size for g in of)
    what, the_knees = units(plan), "The knee" if plan.joint else "The knees"
    text = f"{the_knees} alone would have kept {asked:,} of {total:,} {what}; "
    text += f"the budget ({plan.budget}) kept {kept:,}."
    if asked == kept or (plan.joint and plan.budget == "knee"):
        more = (
            f", and {kept - asked:,} more, so that no layer loses all of its {what}" if kept > asked else ""
        )
        text = f"{the_knees} decided: {min(asked, kept):,} of {total:,} {what} stay{more}."
    fallbacks = sum(k.fallback is not None for k in plan.knees)
    if fallbacks and plan.joint:
        return f"{text} The curve had no knee of its own, and a fallback was used."
    many = f" In {fallbacks} of {len(of)} groups the curve had no knee and a fallback was used."
    return text + many * bool(fallbacks)


def speed(latency: Latency) -> str:
    """What a measured ratio base/pruned says, in words; with its interval where it is not certain."""
    ratio = latency.ratio
    if not latency.conclusive or not (latency.differs or latency.ratio_interval is None):
        low, high = latency.ratio_interval or (ratio, ratio)
        verdict = "no difference can be told" if low <= 1 <= high else "how much cannot be told"
        return f"{verdict} ({low:.2f}–{times(high)})"
    if 0.98 <= ratio <= 1.02:
        return f"no faster ({times(ratio)})"
    return f"{times(ratio)} faster" if ratio > 1 else f"slower ({times(ratio)} the speed)"


def place(latency: Latency) -> str:
    """Where a time was taken: ``batch 1, 2 threads``; the engine only where it is not PyTorch."""
    place = f"batch {latency.batch}, {counted(latency.threads, 'thread')}"
    return place if latency.engine == "torch" else f"{place}, {ENGINES.get(latency.engine, latency.engine)}"


def promise(result: Result) -> str | None:
    """Promised (MACs) against measured (time), in one or two sentences; None when no time was taken."""
    base, last = result.stage("base"), last_stage(result)
    if not result.latency or base is None or last is None or not last.macs:
        return None
    promised = base.macs / last.macs
    low, high = (of(result.latency, key=lambda t: t.ratio) for of in (min, max))
    measured, most = (f"{speed(t)} at {place(t)}" for t in (low, high))
    if low is not high:
        certain = low.differs or high.differs or not low.ratio_interval
        measured = f"from {measured} to {most}" if certain else f"{measured}, {most}"
    gives = low.ratio >= 0.95 * promised
    verdict = f"The clock gives {'what' if gives else 'less than'} the MACs promise."
    if not (low.conclusive and high.conclusive):
        verdict = "The clock was too unsteady to say whether it gives what the MACs promise."
    elif high.ratio >= 0.95 * promised and not gives:
        verdict = "Whether the clock gives what the MACs promise depends on where it is read."
    return f"Promised: {times(promised)} fewer MACs. Measured: {measured}. {verdict}"


def judged(judged: Judged, metric: MetricWords | None = None) -> str:
    """What decided, on how many samples of what, and what they said: ``at most 2 points lost …``.

    Args:
        judged: what they said.
        metric: of the run, where more is known of it than what judged says.
    """
    metric = metric or of(judged)
    on = f"{judged.samples:,} {judged.on}" + (" samples" if judged.on == "validation" else "")
    known = {"max_drop": f"at most {metric.loss(f'{judged.allowed or 0:.4g}')}", "knee": "the size"}
    asked = known.get(judged.decision, f"{judged.decision} against the model before it")
    return f"{asked}, on {on}: {metric.loss(metric.lost(judged.found, judged.interval))}"


def held_out(plan: Plan, result: Result) -> str:
    """The last value with how many samples gave it and its interval; nothing where nobody noted them."""
    last, metric = last_stage(result) or result.stage("base"), of_run(plan, result)
    if last is None or last.samples is None:
        return ""
    interval = " ({} to {})".format(*map(metric.number, last.interval)) if last.interval else ""
    said = metric.agreeing(last.value, interval) if metric.agrees else metric.named(last.value) + interval
    return f"{said}{',' if metric.agrees else ''} on {last.samples:,} samples"
