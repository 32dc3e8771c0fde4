"""MPNet-base sentence embeddings, judged as those of :mod:`task_networks.embeddings`.

``folder/model`` is the encoder as transformers saves it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import MPNetConfig, MPNetModel

from task_networks.embeddings import SMALL, encoder_case
from task_networks.frame import AS_IT_IS, Case, Variant


def case(*, smoke: bool, folder: Path) -> Case:
    """At 75 % of the encoder's MACs; 109 million parameters, so few texts and ways."""
    torch.manual_seed(0)
    return encoder_case(
        folder,
        smoke=MPNetModel(MPNetConfig(**SMALL), add_pooling_layer=False) if smoke else None,
        network="MPNet-base, heads and neurons",
        counts=(250, 250),
        budgets=(0.75,),
        variants=(AS_IT_IS, Variant("flap", recovery="bias"), Variant("magnitude")),
    )
