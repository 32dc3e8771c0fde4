"""The libraries' models."""

from __future__ import annotations

import textwrap

from tables.shared import load, table, versions


def zoo() -> str:
    """A row a family of models, and a line a reason."""
    content = load("zoo")
    families: dict[str, list[dict]] = {}
    for entry in content["models"]:
        families.setdefault(entry["family"], []).append(entry)
    rows = []
    for family, entries in sorted(families.items()):
        passed = [e for e in entries if e["status"] == "passed"]
        counts = {s: sum(e["status"] == s for e in entries) for s in ("passed", "refused", "failed")}
        coupled = [e["groups"]["coupled"] for e in passed]
        share = [100 * e["macs"] for e in passed]
        rows.append(
            [
                family,
                *(str(counts[s] or "–") for s in counts),
                f"{min(coupled)} to {max(coupled)}" if coupled else "–",
                f"{min(share):.1f} to {max(share):.1f} %" if share else "–",
                f"{max(e['difference'] for e in passed):.0e}" if passed else "–",
            ]
        )
    said = [
        f"- {e['status']}: `{e['model']}`: {textwrap.shorten(e['reason'], 240, placeholder=' …')}"
        for e in content["models"]
        if e["status"] != "passed"
    ]
    head = ["family", "passed", "refused", "failed", "coupled groups", "MACs kept", "cut − masked"]
    note = (
        f"\n\n{sum(e['status'] == 'passed' for e in content['models'])} of {len(content['models'])} models "
        f"pass. Classification models of torchvision and timm, random weights, "
        f"`magnitude` to {100 * content['keep_macs']:.0f} % of the MACs with all kinds of units. *Passed*: "
        "the cut model computes what the masked one does (largest difference, in proportion to the "
        "spread of outputs), gradients reach all of its weights, and a fresh process loads it with equal "
        "outputs.\n\n"
    )
    return table(head, rows) + note + "\n".join(said) + versions(content)
