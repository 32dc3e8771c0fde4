"""MiniLM-L6 sentence embeddings: cosine to the unpruned ones, and how pairs of texts rank, without labels.

``folder/model`` is the encoder as transformers saves it; the texts are the film reviews of benchmarks/data.
"""

from __future__ import annotations

import gzip
import random
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from coprune.task import TASKS
from task_networks.frame import COMMON, Case, Variant

SMALL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2} | {
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
REVIEWS = Path(__file__).resolve().parent.parent / "data" / "movie_valence.tsv.gz"
Batches = list[dict[str, Tensor]]
ALL = (
    Variant("complementary", "auto", "reconstruction", {"effort": 3}),
    *COMMON,
    Variant("wanda_sp", recovery="none"),
    Variant("flap", recovery="bias"),
    Variant("flap"),
)


def reviews() -> list[str]:
    """Texts in an order of their own."""
    lines = gzip.decompress(REVIEWS.read_bytes()).decode().split("\n")
    texts = [line.split("\t")[2] for line in lines if line.count("\t") >= 2]
    random.Random(0).shuffle(texts)
    return texts


def batches(tokenizer: Any, texts: list[str], size: int = 32) -> Batches:
    """Tokens of texts of like length together."""
    texts = sorted(texts, key=len)
    return [
        dict(tokenizer(texts[at : at + size], padding=True, return_tensors="pt"))
        for at in range(0, len(texts), size)
    ]


def drawn() -> list[Batches]:
    """Tokens for a smoke test, to calibrate on and to judge on."""
    ids = torch.randint(5, 100, (24, 9), generator=torch.Generator().manual_seed(1))
    return [[{"input_ids": part, "attention_mask": torch.ones_like(part)}] for part in (ids[:16], ids[16:])]


def similarities(model: nn.Module, texts: Batches) -> Tensor:
    """Cosine of every pair of texts, ``[N·(N−1)/2]``."""
    with torch.no_grad():
        found = [TASKS["feature-extraction"].outputs(model, batch).tensors[0] for batch in texts]
    vectors = F.normalize(torch.cat(found), dim=1)
    first, second = torch.triu_indices(len(vectors), len(vectors), 1)
    return (vectors @ vectors.T)[first, second]


def rank_correlation(model: nn.Module, *, wanted: Tensor, texts: Batches) -> float:
    """Spearman's, of the pairs' similarities and the unpruned network's ``wanted``."""
    return float(spearmanr(similarities(model, texts), wanted).statistic)


def encoder_case(
    folder: Path, *, smoke: nn.Module | None, network: str, counts: tuple[int, int], **asked: Any
) -> Case:
    """A sentence encoder that is judged by its vectors.

    Args:
        folder: with ``model``.
        smoke: a network in its place.
        network: in a few words.
        counts: texts to calibrate on and to judge on.
        **asked: budgets and ways to prune, of :class:`Case`.
    """
    if smoke is not None:
        model, parts = smoke.eval(), drawn()
    else:
        if not (folder / "model").is_dir():
            raise SystemExit(f"{folder}: needs model/, a sentence encoder as transformers saves it")
        model = AutoModel.from_pretrained(folder / "model", add_pooling_layer=False).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        texts = reviews()
        parts = [batches(tokenizer, part) for part in (texts[: counts[0]], texts[counts[0] : sum(counts)])]
    wanted = similarities(model, parts[1])
    return Case(
        task="feature-extraction",
        network=network,
        made=f"the sentence encoder with its published weights, the mean over real tokens; {counts[0]:,} "
        f"film reviews calibrate, {counts[1]} others judge, no labels. Ranks (Spearman) are of the cosines "
        "of all pairs of these, against the unpruned network's. Reconstruction is at `--effort 3`.",
        model=model,
        calibration=parts[0],
        heldout=parts[1],
        options={"units": ("heads", "neurons")},
        seeds=1,
        more={"rank correlation": partial(rank_correlation, wanted=wanted, texts=parts[1])},
        **asked,
    )


def case(*, smoke: bool, folder: Path) -> Case:
    """At 75 and 50 % of the encoder's MACs."""
    torch.manual_seed(0)
    return encoder_case(
        folder,
        smoke=BertModel(BertConfig(**SMALL), add_pooling_layer=False) if smoke else None,
        network="MiniLM-L6, heads and neurons",
        counts=(10_000, 500),
        budgets=(0.75,) if smoke else (0.5, 0.75),
        variants=ALL,
    )
