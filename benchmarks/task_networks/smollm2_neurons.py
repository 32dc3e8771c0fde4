"""SmolLM2-135M on mails: perplexity with a quarter of all its blocks' neurons removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from task_networks import smollm2
from task_networks.frame import Case


def case(*, smoke: bool, folder: Path) -> Case:
    """The same network and texts, three of four neurons left; in which blocks is the allocation's matter."""
    whole = smollm2.case(smoke=smoke, folder=folder.with_name("smollm2"))
    neurons = smollm2.share_of(".mlp.", whole.model, [batch["input_ids"] for batch in whole.heldout])
    return replace(
        whole,
        network="SmolLM2-135M, neurons",
        made="30 layers of Llama's kind from their published weights; 96 blocks of 128 tokens of mails "
        "calibrate without labels, 64 others judge; a quarter of all neurons goes.",
        budgets=(1 - neurons / 4,),
        options={**whole.options, "units": ("neurons",)},
    )
