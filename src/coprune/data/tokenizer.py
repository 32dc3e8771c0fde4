"""Texts as the tokens that a 🤗 tokenizer makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coprune.compat.transformers import quiet_hub
from coprune.data.text import Texts, TextSource, table
from coprune.data.token_targets import IGNORED, spans_of_tokens, tags_of_tokens
from coprune.errors import UserError, first_line
from coprune.lazy import required


def open_tokenizer(where: str) -> Any:
    """The tokenizer of a folder or a hub id.

    Raises:
        UserError: 🤗 transformers is not installed, or there is no tokenizer.
    """
    library = required("transformers", "text data needs 🤗 transformers", extra="text")
    folder = Path(where).expanduser()
    if where.startswith((".", "/", "~")) and not folder.is_dir():
        raise UserError(f"no tokenizer in '{where}': no such folder")
    try:
        with quiet_hub():
            place = str(folder) if folder.is_dir() else where
            return library.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as cause:
        raise UserError(
            f"no tokenizer in '{where}' ({first_line(cause)}); "
            "give the folder with its files as --tokenizer DIR"
        ) from cause


def longest_text(tokenizer: Any, *, otherwise: int = 512) -> int:
    """Tokens that the tokenizer's model takes; ``otherwise`` when the tokenizer does not say."""
    stated = getattr(tokenizer, "model_max_length", None)
    # A tokenizer without a limit states 10³⁰.
    return int(stated) if isinstance(stated, int) and 0 < stated <= 100_000 else otherwise


def tokenise(texts: Texts, tokenizer: Any, *, max_length: int) -> TextSource:
    """Texts to tokens, in one call of the tokenizer.

    Args:
        texts: as read.
        tokenizer: a 🤗 tokenizer, e.g. that of :func:`open_tokenizer`.
        max_length: tokens of a sample, special ones included; of longer texts the end is left out.

    Returns:
        The samples, sorted by length.

    Raises:
        UserError: targets that stand at tokens, and a tokenizer that does not tell where these come from.
    """
    answered = texts.pair is not None and texts.values is not None
    encoded = tokenizer(
        [list(words) for words in texts.text] if texts.tagged else list(texts.text),
        text_pair=None if texts.pair is None else list(texts.pair),
        return_offsets_mapping=answered and getattr(tokenizer, "is_fast", False),
        truncation="only_second" if answered else True,
        max_length=max_length,
        is_split_into_words=texts.tagged,
        verbose=False,
    )
    pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)
    rows, types = (encoded.get(name) for name in ("input_ids", "token_type_ids"))
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    details = getattr(encoded, "encodings", None)
    # A tokenizer in Python does not tell; what fills the whole length has most likely lost something.
    cut = [bool(e.overflowing) for e in details] if details else (lengths == max_length).tolist()
    values: Any = None
    if texts.values is not None and texts.tagged:
        values = table(tags_of_tokens(encoded, texts.values), IGNORED)
    elif texts.values is not None:
        values = spans_of_tokens(encoded, texts.values) if answered else torch.tensor(texts.values)
    return TextSource.of(
        table(rows, pad),
        lengths,
        texts.labels,
        pad=pad,
        types=None if types is None else table(types, 0),
        truncated=torch.tensor(cut) if any(cut) else None,
        values=values,
    )
