"""The search for a budget as the page shows it: accuracy of every size that was tried."""

from __future__ import annotations

import re
from typing import Any

from coprune.plan import Plan
from coprune.report import formatting as words
from coprune.result import Result

_LIMIT = re.compile(r"max_drop=(\d+(?:\.\d*)?(?:e-?\d+)?)")


def view(plan: Plan, result: Result) -> dict[str, Any]:
    """The search for the page's script.

    Returns:
        ``probes`` in the order they were made, each ``macs``, ``value``, ``ok``, ``chosen``, and
        ``drop``, ``low``, ``high`` (points, or None: runs before the interval was taken have none);
        ``base``: accuracy of the unpruned model on the judging samples, None when no probe tells;
        ``limit``: the allowed drop in points, None when the budget names none.
    """
    probes = [_probe(p) for p in result.search if _number(p.get("macs")) and _number(p.get("value"))]
    limit = _LIMIT.search(plan.budget)
    return {"probes": probes, "base": _base(probes), "limit": float(limit[1]) if limit else None}


def rows(search: dict[str, Any]) -> list[dict[str, Any]]:
    """The same as text, for the table."""
    table = []
    for probe in search["probes"]:
        drop = probe["drop"]
        if drop is None and search["base"] is not None:
            drop = 100 * (search["base"] - probe["value"])
        table.append(
            {
                "macs": words.percent(probe["macs"]),
                "value": words.percent(probe["value"], 2),
                "lost": "–" if drop is None else words.lost(drop, probe["low"], probe["high"]),
                "verdict": _verdict(probe, search["limit"]),
                "chosen": probe["chosen"],
            }
        )
    return table


def _probe(given: dict[str, Any]) -> dict[str, Any]:
    drop = given["drop"] if _number(given.get("drop")) else None
    low, high = given.get("low"), given.get("high")
    sound = drop is not None and _number(low) and _number(high) and low <= drop <= high
    return {
        "macs": float(given["macs"]),
        "value": float(given["value"]),
        "ok": bool(given.get("ok")),
        "chosen": given.get("chosen") is True,
        "drop": drop,
        "low": low if sound else None,
        "high": high if sound else None,
    }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def _base(probes: list[dict[str, Any]]) -> float | None:
    """What every drop is counted from: stated by a drop, or else measured with everything kept."""
    for probe in probes:
        if probe["drop"] is not None:
            return float(probe["value"] + probe["drop"] / 100)
    return next((float(p["value"]) for p in probes if p["macs"] >= 1 - 1e-9), None)


def _verdict(probe: dict[str, Any], limit: float | None) -> str:
    if probe["chosen"]:
        return "chosen" if probe["ok"] else "chosen, beyond the allowed drop"
    if not probe["ok"]:
        return "refused"
    return "within the allowed drop" if limit is not None else "tried"  # the knee allows no drop
