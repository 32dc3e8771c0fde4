"""The page of one run: ``run/plan.json`` and ``run/result.json`` → ``run/report.html``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coprune.files import write_text
from coprune.plan import Plan
from coprune.report import formatting as words
from coprune.report import groups, heads, pairs, search
from coprune.report import redundancy as took_over
from coprune.report.page import page
from coprune.result import Result

_ORDER = ("base", "pruned", "recovered", "finetuned")


def render(run: Path) -> str:
    """One self-contained HTML page about a run; it asks for no other file.

    Args:
        run: folder with ``plan.json`` and ``result.json``.

    Returns:
        The page.

    Raises:
        UserError: one of the two is missing, truncated, foreign, or of another schema.
    """
    run = Path(run)
    plan, result = Plan.load(run / "plan.json"), Result.load(run / "result.json")
    stages = _stages(result)
    searched = search.view(plan, result)
    units = words.units(plan)
    all_heads = heads.view(plan)
    redundant = pairs.view(plan, run)
    return page(
        "run.html.j2",
        data={
            "method": words.method(plan.method),
            "unit": units,
            "groups": [
                groups.view(heads.alone(g) if all_heads and all_heads["joint"] else g, words.one(units))
                for g in plan.groups
            ],
            "heads": all_heads,
            "pairs": redundant,
            "stages": stages,
            "latency": [_latency(t) for t in result.latency],
            "search": searched,
        },
        plan=plan,
        result=result,
        title=f"{words.method(plan.method)} · {plan.budget}",
        headline=words.headline(plan, result),
        small_print=_small_print(plan, result),
        tiles=_tiles(result),
        stages=stages,
        knees=words.knees(plan),
        promise=words.promise(result),
        took_over=took_over.about_plan(plan),
        heads=all_heads,
        pairs=redundant,
        search=searched,
        probes=search.rows(searched),
        intervals=any(p["low"] is not None for p in searched["probes"]),
        of_heldout=result.judged is not None and result.judged.on == "validation",
        unit=words.one(units),
        settings=[(key, _plain(value)) for key, value in plan.settings.items()],
        seconds=[(key, words.duration(value)) for key, value in result.seconds.items()],
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


def _stages(result: Result) -> list[dict[str, Any]]:
    base = result.stage("base")
    found = [s for name in _ORDER if (s := result.stage(name))]
    return [
        {
            "label": words.STAGES[s.name],
            "value": s.value,
            "change": None if base is None or s is base else s.value - base.value,
            "calibration": s.calibration,
            "macs": s.macs,
            "params": s.params,
            "bytes": s.bytes,
            "peak_memory": s.peak_memory,
        }
        for s in found
    ]


def _tiles(result: Result) -> list[dict[str, str]]:
    """Label, value and a line of explanation for every tile."""
    base, last = result.stage("base"), words.last_stage(result)
    tiles = []
    for label, field, write_out in (
        ("MACs left", "macs", words.count),
        ("Parameters left", "params", words.count),
        ("Size on disk", "bytes", words.size),
        ("Peak memory", "peak_memory", words.size),
    ):
        before = getattr(base, field, None)
        after = getattr(last, field, None)
        if before and after is not None:
            tiles.append(
                {
                    "label": label,
                    "value": words.percent(after / before),
                    "note": f"{write_out(before)} → {write_out(after)}",
                }
            )
        else:
            tiles.append({"label": label, "value": "–", "note": "not measured"})
    if result.latency:
        first = result.latency[0]
        note = f"{words.place(first)}, {first.engine} on {first.device}"
        if not first.told:
            note = f"{words.sped(first)}; {note}"
        tiles.append(
            {"label": "Speed", "value": words.times(first.ratio) if first.told else "?", "note": note}
        )
    else:
        tiles.append({"label": "Speed", "value": "–", "note": "not measured"})
    return tiles


def _latency(latency: Any) -> dict[str, Any]:
    return {**latency.model_dump(), "place": words.place(latency)}


def _small_print(plan: Plan, result: Result) -> list[tuple[str, str]]:
    data = plan.data.get("name") or ", ".join(plan.data.values()) or "not stated"
    return [
        ("Method", plan.method),
        ("Budget", plan.budget),
        *([("Judged", words.judged(result.judged))] if result.judged else []),
        *([("Held out", words.held_out(result))] if words.held_out(result) else []),
        ("Seed", str(plan.seed)),
        ("Data", data),
        ("Took", words.duration(sum(result.seconds.values())) if result.seconds else "not timed"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in result.versions.items()) or "not stated"),
    ]


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
