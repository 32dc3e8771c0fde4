"""A DistilBERT that tags what is wrong in a sentence: corrected errors.

``folder/model`` is a tagger as transformers saves it, whose labels are ``$KEEP`` and ``$REPLACE_word``. The
texts are the film reviews of benchmarks/data, a word of each mistaken for another that is often confused
with it; nothing reads the right one but the metric.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForTokenClassification,
)

from task_networks.embeddings import reviews
from task_networks.frame import COMMON, Case, Variant

SMALL = {"vocab_size": 100, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "num_labels": 5}
CONFUSED = (
    ("its", "it's"),
    ("their", "there"),
    ("than", "then"),
    ("to", "too"),
    ("your", "you're"),
    ("whose", "who's"),
    ("has", "have"),
    ("was", "were"),
    ("whether", "weather"),
    ("lose", "loose"),
)
INSTEAD = {word: other for pair in CONFUSED for word, other in (pair, pair[::-1])}
Batches = list[dict[str, Tensor]]


def mistaken(texts: list[str], known: set[str]) -> Iterator[tuple[list[str], int, str]]:
    """Words of the texts that have one to mistake: with it mistaken, where that is, and what was right.

    Args:
        texts: of words between spaces.
        known: words that the tagger can put.
    """
    drawn = random.Random(0)
    for text in texts:
        words = text.split()
        # The rarer words first, or nearly every error would be a "to".
        places = [i for i, word in enumerate(words) if word in INSTEAD and word in known]
        rare = [i for i in places if words[i] != "to"]
        if places:
            at = drawn.choice(rare or places)
            yield [*words[:at], INSTEAD[words[at]], *words[at + 1 :]], at, words[at]


def batches(tokenizer: Any, model: nn.Module, texts: list[str], size: int = 32) -> Batches:
    """Tokens, and as labels what the mistaken word should be; all others do not count."""
    numbers = {label: int(number) for number, label in model.config.id2label.items()}
    known = {label.removeprefix("$REPLACE_") for label in numbers}
    rows = sorted(mistaken(texts, known), key=lambda row: len(row[0]))
    found = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        taken = tokenizer(
            [row[0] for row in part], is_split_into_words=True, padding=True, return_tensors="pt"
        )
        labels = torch.full_like(taken["input_ids"], -100)
        for i, (_, at, right) in enumerate(part):
            labels[i, taken.word_ids(i).index(at)] = numbers[f"$REPLACE_{right}"]
        found.append({name: taken[name] for name in ("input_ids", "attention_mask")} | {"labels": labels})
    return found


def unlabelled(texts: Batches) -> Batches:
    """What the network reads."""
    return [{name: value for name, value in batch.items() if name != "labels"} for batch in texts]


def same_tags(model: nn.Module, *, wanted: list[Tensor], texts: Batches) -> float:
    """Share of the tokens that are tagged as the unpruned network does."""
    same, count = 0.0, 0.0
    for batch, tags, found in zip(texts, wanted, tagged(model, texts), strict=True):
        real = batch["attention_mask"].bool()
        same, count = same + float((tags == found)[real].sum()), count + float(real.sum())
    return same / count


def tagged(model: nn.Module, texts: Batches) -> list[Tensor]:
    """Tags, ``[N, T]`` a batch."""
    with torch.no_grad():
        return [model(**batch).logits.argmax(-1) for batch in unlabelled(texts)]


def case(*, smoke: bool, folder: Path) -> Case:
    """At 75 and 50 % of the MACs."""
    if smoke:
        torch.manual_seed(0)
        model = DistilBertForTokenClassification(DistilBertConfig(**SMALL)).eval()
        ids = torch.randint(5, 100, (24, 9), generator=torch.Generator().manual_seed(1))
        parts = [
            [{"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part % 5}]
            for part in (ids[:16], ids[16:])
        ]
    else:
        if not (folder / "model").is_dir():
            raise SystemExit(f"{folder}: needs model/, a tagger of errors as transformers saves it")
        model = AutoModelForTokenClassification.from_pretrained(folder / "model").eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        texts = reviews()
        parts = [batches(tokenizer, model, part) for part in (texts[:700], texts[700:2700])]
    count = [sum(len(batch["input_ids"]) for batch in part) for part in parts]
    wanted = tagged(model, parts[1])
    return Case(
        task="token-classification",
        network="DistilBERT tagger, heads and neurons",
        made="six layers and 213 tags of corrections, with their published weights. A word of each film "
        f"review is mistaken for one often confused with it; {count[0]} reviews calibrate without labels, "
        f"{count[1]:,} judge. Its accuracy is the share of mistaken words that get the right one back, "
        "agreement that of all tokens with the unpruned network's tag.",
        model=model,
        calibration=unlabelled(parts[0]),
        heldout=parts[1],
        budgets=(0.75,) if smoke else (0.75, 0.5),
        options={"units": ("heads", "neurons")},
        variants=(*COMMON, Variant("wanda_sp", recovery="none"), Variant("flap", recovery="bias")),
        seeds=1,
        more={"agreement": partial(same_tags, wanted=wanted, texts=parts[1])},
    )
