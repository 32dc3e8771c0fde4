"""The page of one run: ``run/plan.json`` and ``run/result.json`` → ``run/report.html``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coprune.files import write_text
from coprune.plan import Plan
from coprune.report import formatting as f
from coprune.report import heads, pairs, search, sentences
from coprune.report.details import details
from coprune.report.groups import fitted
from coprune.report.metric import CLASSIFICATION, MetricWords, of_run
from coprune.report.page import page
from coprune.report.predictions import summary
from coprune.result import Result


def render(run: Path) -> str:
    """One self-contained HTML page about a run; it asks for no other file.

    Args:
        run: folder with ``plan.json`` and ``result.json``.

    Returns:
        The page.

    Raises:
        UserError: one of the two is missing, truncated, foreign, or of another schema.
    """
    from coprune.report import figures  # Plotly takes a third of a second to import

    run = Path(run)
    plan, result = f.completed(Plan.load(run / "plan.json")), Result.load(run / "result.json")
    plan = plan.model_copy(update={"groups": tuple(fitted(g) for g in plan.groups)})
    stages, metric = [stage for name in f.STAGES if (stage := result.stage(name))], of_run(plan, result)
    units, searched, of_heads = f.units(plan), search.read(plan, result), heads.of_plan(plan)
    sizes = [g.size for g in plan.groups]
    charts = {
        "stages": {"": figures.steps(stages, metric)} if stages else {},
        "overview": {scale: figures.overview(plan, share=scale == "share") for scale in ("units", "share")},
        "latency": {"": figures.latency(result.latency)} if result.latency else {},
        "search": {view: search.figure(searched, view=view) for view in searched.views},
    }
    return page(
        "run.html.j2",
        title=f"{f.method(plan.method)} · {plan.budget}",
        headline=sentences.headline(plan, result),
        small_print=_small_print(plan, result, metric),
        plan=plan,
        result=result,
        metric=metric,
        units=units,
        unit=f.one(units),
        stages=stages,
        charts=charts,
        last=sentences.last_stage(result),
        knees=sentences.knees(plan),
        predicted=summary(plan.groups, units),
        uneven=bool(sizes) and max(sizes) > 8 * min(sizes),
        heads=of_heads,
        head_charts=heads.charts(of_heads) if of_heads else {},
        pairs=pairs.of_run(of_heads, plan, run) if of_heads else None,
        groups=[details(g, units, place=i, heads=of_heads) for i, g in enumerate(plan.groups)],
        promise=sentences.promise(result),
        search=searched,
        settings=[(key, _plain(value)) for key, value in plan.settings.items()],
    )


def write(run: Path) -> Path:
    """Render a run's page into the run folder.

    Returns:
        ``run/report.html``.

    Raises:
        UserError: as :func:`render`, or the file cannot be written.
    """
    target = Path(run) / "report.html"
    write_text(target, render(run))
    return target


def _small_print(plan: Plan, result: Result, metric: MetricWords) -> dict[str, str]:
    lines = {
        "Method": plan.method,
        "Task": "" if metric.task == CLASSIFICATION else metric.task,
        "Budget": plan.budget,
        "Judged": sentences.judged(result.judged, metric) if result.judged else "",
        "Held out": sentences.held_out(plan, result),
        "Seed": str(plan.seed),
        "Data": plan.data.get("name") or ", ".join(plan.data.values()) or "not stated",
        "Took": f.duration(sum(result.seconds.values())) if result.seconds else "not timed",
        "Versions": ", ".join(f"{k} {v}" for k, v in result.versions.items()) or "not stated",
    }
    return {label: line for label, line in lines.items() if line}


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
