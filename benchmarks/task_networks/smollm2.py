"""SmolLM2-135M on mails: perplexity, heads and neurons of its blocks together.

``folder/model`` is the network as transformers saves it, ``folder/texts.json`` a list of texts. Shares are of
the blocks' MACs; the output layer, a fifth of all, stays as it is.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from coprune.measure import layer_costs
from task_networks.frame import AS_IT_IS, Case, Variant

TOKENS = 128
VARIANTS = (
    AS_IT_IS,
    Variant("complementary", "auto", "reconstruction"),
    Variant("flap", recovery="bias"),
    Variant("wanda_sp", recovery="none"),
    Variant("complementary"),
    Variant("wanda_sp"),
    Variant("flap"),
    Variant("magnitude"),
    Variant("random"),
)
"""The default, and with the slower recovery; baselines as published; choices under the same recovery."""


def opened(*, smoke: bool, folder: Path) -> tuple[Any, list[Tensor], list[Tensor]]:
    """The network, and blocks ``[B, T]`` of tokens to calibrate on and to judge on."""
    if smoke:
        torch.manual_seed(0)
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100}
        tokens = torch.randint(0, 100, (12, 16), generator=torch.Generator().manual_seed(1))
        return LlamaForCausalLM(LlamaConfig(**small, **heads)).eval(), [tokens[:8]], [tokens[8:]]
    if not (folder / "texts.json").is_file():
        raise SystemExit(f"{folder}: needs model/ and texts.json, a list of texts; see docs/tasks.md")
    model = AutoModelForCausalLM.from_pretrained(folder / "model").float().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = json.loads((folder / "texts.json").read_text())
    random.Random(0).shuffle(texts)
    rows = [tokenizer(text + tokenizer.eos_token).input_ids for text in texts[:1200]]
    stream = torch.tensor([token for row in rows for token in row])
    blocks = stream[: len(stream) // TOKENS * TOKENS].view(-1, TOKENS)
    return model, list(blocks[:96].split(8)), list(blocks[-64:].split(8))


def batches(blocks: list[Tensor], *, labelled: bool = False) -> list[dict[str, Tensor]]:
    """As transformers takes them; with ``labelled`` every token is a label too."""
    more = [{"labels": b} if labelled else {} for b in blocks]
    return [
        {"input_ids": b, "attention_mask": torch.ones_like(b), **m} for b, m in zip(blocks, more, strict=True)
    ]


def share_of(part: str, model: Any, heldout: list[Tensor]) -> float:
    """Share of all MACs that layers with ``part`` in their names have."""
    costs = layer_costs(model, batches([heldout[0][:1]])[0])
    return sum(cost.macs for cost in costs if part in cost.name) / sum(cost.macs for cost in costs)


def case(*, smoke: bool, folder: Path) -> Case:
    """At 90, 75 and 50 % of the blocks' MACs."""
    model, calibration, heldout = opened(smoke=smoke, folder=folder)
    head = share_of("lm_head", model, heldout)
    shares = (0.9,) if smoke else (0.9, 0.75, 0.5)
    return Case(
        task="text-generation",
        network="SmolLM2-135M, heads and neurons",
        made="30 layers of Llama's kind, from its published weights; 96 blocks of 128 tokens of mails "
        "calibrate without labels, 64 others judge. Budgets are of the blocks' MACs; times of one block.",
        model=model,
        calibration=batches(calibration),
        heldout=batches(heldout, labelled=True),
        budgets=tuple(head + share * (1 - head) for share in shares),
        options={"units": ("heads", "neurons"), "force": smoke},
        variants=VARIANTS,
        seeds=1,
    )
