"""MiniLM-L6 sentence embeddings: cosine to the unpruned ones, without labels.

``folder/model`` is the encoder as transformers saves it; the texts are the film reviews of benchmarks/data.
"""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from task_networks.frame import COMMON, Case, Variant

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2} | {
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
REVIEWS = Path(__file__).resolve().parent.parent / "data" / "movie_valence.tsv.gz"


def batches(tokenizer: Any, texts: list[str], size: int = 32) -> list[dict[str, torch.Tensor]]:
    """Tokens of texts of like length together."""
    texts = sorted(texts, key=len)
    return [
        dict(tokenizer(texts[at : at + size], padding=True, return_tensors="pt"))
        for at in range(0, len(texts), size)
    ]


def case(*, smoke: bool, folder: Path) -> Case:
    """At 75 and 50 % of the encoder's MACs."""
    if smoke:
        torch.manual_seed(0)
        model = BertModel(BertConfig(**SMALL), add_pooling_layer=False).eval()
        ids = torch.randint(5, 100, (24, 9), generator=torch.Generator().manual_seed(1))
        parts = [[{"input_ids": p, "attention_mask": torch.ones_like(p)}] for p in (ids[:16], ids[16:])]
    else:
        if not (folder / "model").is_dir():
            raise SystemExit(f"{folder}: needs model/, a sentence encoder as transformers saves it")
        model = AutoModel.from_pretrained(folder / "model", add_pooling_layer=False).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        lines = gzip.decompress(REVIEWS.read_bytes()).decode().split("\n")
        texts = [line.split("\t")[2] for line in lines if line.count("\t") >= 2]
        random.Random(0).shuffle(texts)
        parts = [batches(tokenizer, part) for part in (texts[:1000], texts[1000:1500])]
    return Case(
        task="feature-extraction",
        network="MiniLM-L6, heads and neurons",
        made="the sentence encoder with its published weights, the mean over tokens; 1,000 film reviews "
        "calibrate, 500 others judge, no labels.",
        model=model,
        calibration=parts[0],
        heldout=parts[1],
        budgets=(0.75,) if smoke else (0.75, 0.5),
        options={"units": ("heads", "neurons")},
        variants=(
            *COMMON,
            Variant("wanda_sp", recovery="none"),
            Variant("flap", recovery="bias"),
            Variant("flap"),
        ),
        seeds=1,
    )
