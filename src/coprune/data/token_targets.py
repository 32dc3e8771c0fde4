"""Targets of texts that stand at tokens: tags of words, the place of an answer.

Shapes: ``N`` samples, ``L`` tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coprune.errors import UserError

IGNORED = -100
"""The target of tokens that count for nothing, as torch's losses have it."""


def check_fast(encoded: Any) -> None:
    """Refuse what a tokenizer written in Python made.

    Raises:
        UserError: it does not say where its tokens come from.
    """
    if not getattr(encoded, "is_fast", False):
        raise UserError("the tokenizer does not say where its tokens come from; give one with tokenizer.json")


def tags_of_tokens(encoded: Any, tags: Sequence[Sequence[int]]) -> list[list[int]]:
    """The tag of every word at its first token, :data:`IGNORED` at all others.

    Args:
        encoded: words as a fast tokenizer read them.
        tags: of the words of every sample.
    """
    check_fast(encoded)
    rows = []
    for sample, known in enumerate(tags):
        words = encoded.word_ids(sample)
        first = [w is not None and w != before for w, before in zip(words, [None, *words], strict=False)]
        rows.append([known[w] if new else IGNORED for w, new in zip(words, first, strict=True)])
    return rows


def spans_of_tokens(encoded: Any, spans: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """First and last token of every answer; 0 where it is not among the tokens.

    Args:
        encoded: questions and contexts as a fast tokenizer read them, with offsets.
        spans: first character of the answer in the context, and the one behind it.

    Returns:
        ``start_positions`` and ``end_positions``, each ``[N]`` int64.
    """
    check_fast(encoded)
    found = []
    for sample, (first, last) in enumerate(spans):
        places = zip(encoded["offset_mapping"][sample], encoded.sequence_ids(sample), strict=True)
        inside = [
            t for t, ((a, b), part) in enumerate(places) if part == 1 and a < last and b > first and b > a
        ]
        found.append((inside[0], inside[-1]) if inside else (0, 0))
    starts, ends = torch.tensor(found, dtype=torch.int64).view(-1, 2).unbind(1)
    return {"start_positions": starts, "end_positions": ends}
