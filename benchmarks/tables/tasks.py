"""Every kind of work."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from coprune.methods.registry import METHODS
from coprune.result import shown_value
from tables.shared import load, table

Row = dict
HEAD = [
    "task",
    "network",
    "asked",
    "before → after",
    "reconstruction",
    "same allocation",
    "best other",
    "MACs",
    "ms",
    "seconds",
]


def tasks() -> str:
    """The default, and the best of the others under the same allocation and recovery."""
    content = load("tasks")["tasks"]
    lines = [line for done in content.values() for line in _lines(done["rows"])]
    return table(HEAD, lines) + "\n\n" + _said(content)


def tasks_made() -> str:
    """How every network was made."""
    content = load("tasks")["tasks"]
    return "\n".join(f"- *{_network(done)}*: {done['made']}" for done in content.values())


def tasks_all() -> str:
    """Every choice."""
    lines = []
    for done in load("tasks")["tasks"].values():
        for budget in _budgets(done["rows"]):
            ways = _ways(row for row in done["rows"] if row["budget"] == budget)
            order = sorted(ways, key=lambda way: -_goodness(ways[way]))
            lines += [
                [
                    _network(done),
                    _asked(ways[way][0]),
                    f"`{way[0]}`",
                    "its own" if METHODS.find(way[0]).joint else way[1],
                    way[2],
                    _value(ways[way]),
                ]
                for way in order
            ]
    return table(["network", "asked", "choice", "allocation", "recovery", "before → after"], lines)


def _lines(rows: list[Row]) -> list[list[str]]:
    found = []
    for budget in _budgets(rows):
        ways = _ways(row for row in rows if row["budget"] == budget)
        default = ways.get(("complementary", "auto", "auto"))
        if default is None:
            continue
        same = [way for way in ways if way[:2] == ("complementary", "uniform")]
        slower = ways.get(("complementary", "auto", "reconstruction"))
        others = sorted(
            (way for way in ways if way[0] != "complementary"), key=lambda way: -_goodness(ways[way])
        )
        first = default[0]
        found.append(
            [
                first["task"],
                first["network"],
                _asked(first),
                f"**{_value(default)}**",
                _after(slower) if slower else "–",
                _after(ways[same[0]]) if same else "–",
                f"{_after(ways[others[0]])} ({_named(others[0])})" if others else "–",
                f"{100 * _mean(default, 'macs_ratio'):.0f} %",
                f"{_mean(default, 'base_ms'):.3g} → {_mean(default, 'pruned_ms'):.3g}",
                f"{_mean(default, 'seconds'):.0f}",
            ]
        )
    return found


def _named(way: tuple[str, str, str]) -> str:
    """A choice, with its recovery where that is another than ours."""
    return f"`{way[0]}`" if way[2] == "least-squares" else f"`{way[0]}`, recovery {way[2]}"


def _budgets(rows: list[Row]) -> list[float]:
    return sorted({row["budget"] for row in rows}, reverse=True)


def _ways(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """(method, allocation, recovery) → its rows, one a seed."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["allocation"], row["recovery"]), []).append(row)
    return found


def _goodness(rows: list[Row]) -> float:
    return _mean(rows, "after") * (1 if rows[0]["higher_is_better"] else -1)


def _mean(rows: list[Row], name: str) -> float:
    return statistics.fmean(row[name] for row in rows)


def _after(rows: list[Row]) -> str:
    shown = shown_value(_mean(rows, "after"), rows[0]["unit"])
    if len(rows) < 2:
        return shown
    spread = statistics.stdev(row["after"] for row in rows)
    return f"{shown} ± {100 * spread:.2f}" if rows[0]["unit"] == "%" else f"{shown} ± {spread:.1g}"


def _value(rows: list[Row]) -> str:
    """With the further figures, where there are any."""
    own = f"{_label(rows[0])} {shown_value(_mean(rows, 'before'), rows[0]['unit'])} → {_after(rows)}"
    more = [row.get("more", {}) for row in rows]
    return ", ".join([own, *(f"{name} {statistics.fmean(m[name] for m in more):.4f}" for name in more[0])])


def _label(row: Row) -> str:
    return row["metric"].replace("_", " ")


def _asked(row: Row) -> str:
    return (
        f"{100 * row['budget']:.0f} % of the {row['budget_of'].removeprefix('keep_').replace('macs', 'MACs')}"
    )


def _network(done: dict) -> str:
    return done["rows"][0]["network"]


def _said(content: dict) -> str:
    seeds = {len({row["seed"] for row in done["rows"]}) for done in content.values()}
    threads = {row.get("threads", done["threads"]) for done in content.values() for row in done["rows"]}
    named = {f"{k} {v}" for done in content.values() for k, v in done["versions"].items()}
    return (
        f"Held-out figures, mean ± standard deviation over {_either(seeds)} seeds of the pruning; nothing is "
        "trained after it, and nothing but the metric reads a label. *Reconstruction*: the default with this "
        "recovery, which does move all layers by descent, towards the unpruned network's outputs. "
        "*Same allocation*: `complementary` with the budget shared out uniformly and least squares, as "
        "*best other* has it where nothing else is said; `flap` orders all units together, and so shares out "
        "by itself. "
        f"Milliseconds of one sample with {_either(threads)} threads, in turn; seconds of the whole "
        f"pruning.\n\n<sub>{', '.join(sorted(named))}</sub>"
    )


def _either(counts: set[int]) -> str:
    *others, last = map(str, sorted(counts))
    return f"{', '.join(others)} or {last}" if others else last
