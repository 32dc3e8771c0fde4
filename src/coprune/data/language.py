"""What language models learn from texts: blocks of their tokens, or a text for a text.

Shapes: ``T`` tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from coprune.data.source import Batch
from coprune.data.text import Texts, table
from coprune.data.token_targets import IGNORED
from coprune.data.trees import TreeSource
from coprune.errors import UserError

_WIDE = 32
"""Texts that are padded to the same length, neighbours by length."""


def packed(texts: Sequence[str], tokenizer: Any, *, block: int) -> TreeSource:
    """All tokens in a row, cut into blocks that are their own targets.

    Args:
        texts: behind one that does not end its line a token for the end is put.
        tokenizer: a 🤗 tokenizer.
        block: tokens ``T`` of a sample; what is left over at the end is left out.

    Raises:
        UserError: fewer tokens than a block has.
    """
    rows = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ends = ([] if text.endswith("\n") else end for text in texts)
    tokens = [token for row, last in zip(rows, ends, strict=True) for token in (*row, *last)]
    if len(tokens) < block:
        raise UserError(f"{len(tokens)} tokens are fewer than a block of {block}; give more text")
    ids = torch.tensor(tokens[: len(tokens) // block * block]).view(-1, block)
    return TreeSource.of([({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids)])


def paired(texts: Texts, tokenizer: Any, *, max_length: int) -> TreeSource:
    """Texts with the second of each as its target, the longest first.

    A decoder reads the target behind the token that it starts with: that of padding, or that of the end for
    tokenizers that have one for the beginning (BART and its kin).

    Args:
        texts: pairs.
        tokenizer: a 🤗 tokenizer.
        max_length: tokens of a text; the end of longer ones is left out.

    Raises:
        UserError: no pairs.
    """
    if texts.pair is None:
        raise UserError("seq2seq needs a text for every text; give a column text_pair")
    cut = {"truncation": True, "max_length": max_length, "verbose": False}
    given = tokenizer(list(texts.text), **cut)["input_ids"]
    wanted = tokenizer(text_target=list(texts.pair), **cut)["input_ids"]
    pad = tokenizer.pad_token_id or 0
    start = pad if tokenizer.bos_token_id is None else tokenizer.eos_token_id
    order = sorted(range(len(given)), key=lambda i: -len(given[i]))
    batches: list[Batch] = []
    for first in range(0, len(order), _WIDE):
        some = order[first : first + _WIDE]
        ids, labels = table([given[i] for i in some], pad), [wanted[i] for i in some]
        inputs = {
            "input_ids": ids,
            "attention_mask": table([[1] * len(given[i]) for i in some], 0),
            "decoder_input_ids": table([[start, *row[:-1]] for row in labels], pad),
        }
        batches.append((inputs, table(labels, IGNORED)))
    return TreeSource.of(batches)
