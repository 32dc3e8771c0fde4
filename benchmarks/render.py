"""Render the tables of README and docs from the JSON under ``benchmarks/results``.

    python benchmarks/render.py

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; what is there is replaced.
Nothing in those places is ever typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tables import (
    cosep,
    imagenet,
    latency,
    networks,
    quality,
    shared,
    speed,
    tasks,
    text,
    torch_pruning,
    training,
    zoo,
)

PAGES = [shared.ROOT / "README.md", *sorted((shared.ROOT / "docs").glob("*.md"))]


def of_speed(name: str) -> Callable[[], str]:
    return lambda: speed.TABLES[name](shared.load("speed"))


def measured(name: str) -> bool:
    """Whether the results of a table are there."""
    wanted = {
        "bundled": (),
        "headline": ("quality_resnet20",),
        "training": ("training_1000x2",),
        "networks": ("networks_vgg16_bn",),
        "networks_all": ("networks_vgg16_bn",),
        "text": ("text",),
        "reconstruction": ("reconstruction_resnet20", "quality_resnet20"),
        "worth": ("quality_resnet20_coupled",),
        "tasks_all": ("tasks",),
        "tasks_made": ("tasks",),
    }.get(name, ("speed",) if name in speed.TABLES else (name,))
    if not all(shared.there(n) for n in wanted):
        return False
    part = speed.NEEDED.get(name)
    return part is None or part in shared.load("speed")


TABLES: dict[str, Callable[[], str]] = {
    "cosep_compare": cosep.compare("cosep_compare"),
    "bundled": cosep.bundled,
    "cosep_variants": cosep.cosep_variants,
    **{name: of_speed(name) for name in speed.TABLES},
    "headline": quality.headline,
    "quality_resnet20": quality.quality("quality_resnet20"),
    "quality_resnet20_coupled": quality.quality("quality_resnet20_coupled"),
    "quality_vgg16_bn": quality.quality("quality_vgg16_bn"),
    "networks": networks.networks,
    "networks_all": networks.all_choices,
    "latency": latency.latency("latency"),
    "latency_text": latency.latency("latency_text"),
    "max_drop": quality.max_drop,
    "judged": quality.judged,
    "reconstruction": quality.reconstruction,
    "worth": quality.worth,
    "imagenet": imagenet.imagenet,
    "torch_pruning": torch_pruning.torch_pruning,
    "real_size": speed.real_size,
    "ablation": quality.ablation,
    "training": training.training,
    "text": text.text,
    "tasks": tasks.tasks,
    "tasks_all": tasks.tasks_all,
    "tasks_made": tasks.tasks_made,
    "zoo": zoo.zoo,
}


def render(page: str) -> str:
    """Replace every marked table whose results exist."""

    def one(match: re.Match) -> str:
        name = match.group(1)
        if not measured(name):
            return match.group(0)
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", one, page, flags=re.DOTALL)


def main() -> None:
    for page in PAGES:
        before = page.read_text()
        after = render(before)
        if after != before:
            page.write_text(after)
            print(page.relative_to(shared.ROOT))
    if measured("speed_growth"):
        speed.plot(shared.load("speed"), shared.ROOT / "docs" / "speed.svg")


if __name__ == "__main__":
    main()
