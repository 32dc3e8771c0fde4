"""The papers' other networks at a half and a quarter of their MACs, with an epoch after it."""

from __future__ import annotations

from coprune.report import summarise
from tables.shared import load, named, points, table, there, versions

QUARTERS = "_25"
"""Behind a network's name: its quarter was measured by a job of its own."""

NETWORKS = ("vgg16_bn", "resnet56_w8", "mobilenet_v2_w8", "densenet40_w4")


def measured() -> dict[str, dict]:
    """Network → its results, of those that were measured."""
    found = {name: load(f"networks_{name}") for name in NETWORKS if there(f"networks_{name}")}
    for name, content in found.items():
        if there(f"networks_{name}{QUARTERS}"):
            content["rows"] = content["rows"] + load(f"networks_{name}{QUARTERS}")["rows"]
    return found


def networks() -> str:
    """A row a network and budget: the default beside the best of the baselines."""
    lines = []
    for name, content in measured().items():
        rows = {(r["budget"], r["method"]): r for r in summarise(content)}
        for budget in sorted({budget for budget, _ in rows}, reverse=True):
            ours = rows[budget, "complementary"]
            baselines = [r for (b, method), r in rows.items() if b == budget and method != "complementary"]
            line = [f"`{name}`, {100 * content['base']['value']:.2f} %", f"{100 * budget:.0f} %"]
            for stage in ("recovered", "finetuned"):
                best = max(baselines, key=lambda r: r[stage][0])
                lead = 100 * (ours[stage][0] - best[stage][0])
                line += [points(ours[stage]), f"{points(best[stage])} (`{best['method']}`)", f"{lead:+.2f}"]
            lines.append(line)
    head = [
        "network, base",
        "MACs",
        "untrained",
        "best baseline",
        "lead",
        "after an epoch",
        "best baseline",
        "lead",
    ]
    return table(head, lines) + _said() + versions(next(iter(measured().values())))


def all_choices() -> str:
    """A row a network, budget and choice."""
    lines = []
    for name, content in measured().items():
        rows = sorted(summarise(content), key=lambda r: (-r["budget"], -r["recovered"][0]))
        lines += [
            [
                f"`{name}`",
                f"{100 * row['budget']:.0f} %",
                named(row["method"]),
                points(row["pruned"]),
                points(row["recovered"]),
                points(row["finetuned"]),
            ]
            for row in rows
        ]
    head = ["network", "MACs", "choice", "as cut", "+ least squares", "+ an epoch"]
    return table(head, lines) + _said() + versions(next(iter(measured().values())))


def _said() -> str:
    first = next(iter(measured().values()))
    job, train = first["job"], first["job"]["finetune"]
    sizes = ", ".join(f"`{name}` {c['base']['macs'] / 1e6:.2f} M MACs" for name, c in measured().items())
    fewer = [
        f" (`{name}` {c['job']['seeds']})"
        for name, c in measured().items()
        if c["job"]["seeds"] != job["seeds"]
    ]
    width = "`w8` stands for a first layer of 8 channels, DenseNet's `w4` for layers that add 4"
    return (
        f"\n\n`{job['data']}`, networks trained by the project ({sizes}; {width}); "
        f"{job['calibration']:,} calibration images, every choice with the same least squares and "
        f"then {train['epochs']} epoch of SGD, rate {train['lr']:g}{_other_rates(train['lr'])}, "
        f"cosine to 0, batch {train['batch_size']}, distillation weight {train['distill']:g}; "
        f"{job['seeds']} seeds{''.join(fewer)}, mean ± standard deviation of top-1 on the whole test "
        f"set, in per cent; MACs within "
        f"{100 * _apart():.1f} % of one another."
    )


def _other_rates(usual: float) -> str:
    """Where another learning rate was used, for all choices alike."""
    found = {
        f"`{name}` at {100 * row['budget']:.0f} %: {row['rate']:g}"
        for name, content in measured().items()
        for row in content["rows"]
        if row["rate"] != usual
    }
    return f" ({', '.join(sorted(found))})" if found else ""


def _apart() -> float:
    """How far the MACs of two choices for one budget are apart at most, in proportion to the budget."""
    ratios: dict[tuple[str, float], list[float]] = {}
    for name, content in measured().items():
        for row in content["rows"]:
            ratios.setdefault((name, row["budget"]), []).append(row["macs_ratio"])
    return max((max(found) - min(found)) / budget for (_, budget), found in ratios.items())
