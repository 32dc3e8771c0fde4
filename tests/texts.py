"""A text model of a few kilobytes with its tokenizer, and a table of texts that it learns in seconds."""

from __future__ import annotations

import random
from pathlib import Path

FILLERS = ("the", "a", "film", "plot", "with", "and", "of", "scene", "actor", "music", "long", "short")
MARKERS = ("good", "bad", "odd", "new", "old", "red", "blue", "green")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")


def tiny_tokenizer(*, longest: int = 32):
    """Words to numbers, no network: ``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = (*SPECIAL, *FILLERS, *MARKERS)
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=longest,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def tiny_text_model(
    folder: Path, *, classes: int = 3, layers: int = 2, heads: int = 4, hidden: int = 32
) -> Path:
    """An untrained BERT classifier, in the layout of a 🤗 transformers checkpoint."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(FILLERS) + len(MARKERS),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=32,
        num_labels=classes,
        pad_token_id=0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # Ten times as wide as usual: so small a network would stay at the mean of its classes for long.
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence(draw: random.Random, label: int, *, shortest: int = 3, longest: int = 12) -> str:
    """Fillers and, somewhere among them, the marker word of a class."""
    words = [draw.choice(FILLERS) for _ in range(draw.randint(shortest, longest))]
    words.insert(draw.randint(0, len(words)), MARKERS[label])
    return " ".join(words)


def tiny_tsv(path: Path, *, rows: int = 240, classes: int = 3) -> Path:
    """``text, label, split``: the class is told by which marker word occurs; two thirds train, rest test."""
    draw = random.Random(0)
    lines = ["text\tlabel\tsplit"]
    for row in range(rows):
        label = row % classes
        part = "test" if (row // classes) % 3 == 2 else "train"
        lines.append(f"{sentence(draw, label)}\t{label}\t{part}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
