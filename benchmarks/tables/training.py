"""What a little training adds."""

from __future__ import annotations

from coprune.report import summarise
from tables.shared import load, named, points, table, there, versions

TRAININGS = {
    "1000x2": "1,000 × 2",
    "6000x1": "6,000 × 1",
    "20000x1": "20,000 × 1",
    "60000x1": "60,000 × 1",
}


def training() -> str:
    """Accuracy against images of training seen: a row a budget, choice, recovery and aim."""
    cells: dict[tuple, dict[str, str]] = {}
    sizes: dict[tuple, float] = {}
    runs = [(name, f"training_{name}{more}") for more in ("", "_50", "_match", "_bn") for name in TRAININGS]
    contents = [(name, load(file)) for name, file in runs if there(file)]
    for name, content in contents:
        hidden = content["job"]["finetune"].get("match", 0) > 0
        for row in summarise(content):
            of = (row["budget"], row["method"], row["recovery"])
            line = cells.setdefault((*of, hidden), {"untrained": points(row["recovered"])})
            rates = {r["rate"] for r in content["rows"] if (r["budget"], r["method"], r["recovery"]) == of}
            line[name] = f"{points(row['finetuned'])} ({', '.join(f'{r:g}' for r in sorted(rates))})"
            sizes.setdefault((*of, hidden), row["recovered"][0])
    # Where only the baselines' best was trained it is for the sentence below the table.
    several = [name for name, content in contents if len(content["job"]["methods"]) > 1]
    shown = [name for name in TRAININGS if name in several]
    order = sorted(cells, key=lambda key: (-key[0], key[2] != "least-squares", not key[3], -sizes[key]))
    lines = [
        [
            f"{100 * budget:.0f} %",
            named(method),
            "least squares" if recovery == "least-squares" else "batch norm",
            "and hidden outputs" if hidden else "soft labels",
            cells[key]["untrained"],
            *(cells[key].get(name, "–") for name in shown),
        ]
        for key in order
        for budget, method, recovery, hidden in [key]
    ]
    first = contents[0][1]
    job = first["job"]
    train = job["finetune"]
    said = (
        f"\n\n`{job['model']}` on `{job['data']}`, base {100 * first['base']['value']:.2f} %; images × "
        f"passes of training after the recovery; SGD, cosine to 0, batch {train['batch_size']}, distillation "
        f"weight {train['distill']:g}; {job['seeds']} seeds, mean ± standard deviation of top-1 on the whole "
        "test set, in per cent. In brackets the learning rate that did best on calibration data."
    )
    head = [
        "MACs",
        "choice",
        "recovery",
        "trained towards",
        "untrained",
        *(TRAININGS[name] for name in shown),
    ]
    return table(head, lines) + said + _least_trained(cells, sizes) + versions(first)


def _least_trained(cells: dict[tuple, dict[str, str]], untrained: dict[tuple, float]) -> str:
    """How much training a baseline without least squares needs to reach the default without any."""
    said = "\n\nTo reach untrained `complementary` with least squares, "
    said += "the best baseline with batch norm needs"
    for budget in sorted({key[0] for key in cells}, reverse=True):
        wanted = 100 * untrained[budget, "complementary", "least-squares", False]
        others = [
            line
            for (b, m, how, _), line in cells.items()
            if (b, how) == (budget, "bn") and m != "complementary"
        ]
        tried = [name for name in TRAININGS if any(name in line for line in others)]
        best = {name: max(float(line[name].split()[0]) for line in others if name in line) for name in tried}
        enough = next((name for name in tried if best[name] >= wanted), None)
        need = (
            f"{TRAININGS[enough]} ({best[enough]:.2f})"
            if enough
            else f"more than {TRAININGS[tried[-1]]} ({best[tried[-1]]:.2f})"
        )
        said += f" at {100 * budget:.0f} % of the MACs {need},"
    return said.rstrip(",") + "."
