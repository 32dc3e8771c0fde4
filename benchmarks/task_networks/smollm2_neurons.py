"""SmolLM2-135M on mails: perplexity with a quarter of every block's neurons removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from task_networks import smollm2
from task_networks.frame import Case, Variant


def case(*, smoke: bool, folder: Path) -> Case:
    """The same network and texts, three of four neurons left."""
    whole = smollm2.case(smoke=smoke, folder=folder.with_name("smollm2"))
    return replace(
        whole,
        network="SmolLM2-135M, neurons",
        made="30 layers of Llama's kind from their published weights; 96 blocks of 128 tokens of mails "
        "calibrate without labels, 64 others judge; a quarter of every block's neurons goes.",
        budgets=(0.75,),
        budget_of="keep_units",
        options={**whole.options, "units": ("neurons",)},
        variants=tuple(
            v for v in whole.variants if v != Variant("complementary")
        ),  # the default is uniform here
    )
