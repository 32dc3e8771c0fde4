"""Labelled texts: as they are read, and as the tokens that a model reads.

Shapes: ``N`` samples, ``L`` tokens of the longest, ``B`` samples of a batch, ``T`` tokens of the longest
of a batch.

Texts are of very different lengths, and a padding token costs as much as any other. Samples are
therefore stored by length, and every batch is cut to its own longest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coprune.data.source import Batch, drawn_order, steps_of
from coprune.distributed.world import own_part
from coprune.errors import UserError
from coprune.models.hubs import quiet_hub
from coprune.tracing.forward import part_of

_CHUNK = 50
"""Batches of training that are sorted by length together: enough to pad little, few enough to mix."""

_NAMED = {"input_ids", "attention_mask", "token_type_ids"}


@dataclass(frozen=True)
class Texts:
    """Texts as they were read.

    Attributes:
        text: ``N`` texts.
        pair: the second text of every sample, or None.
        label: ``[N]`` int64, places in ``names``.
        names: what the classes are called.
    """

    text: tuple[str, ...]
    pair: tuple[str, ...] | None
    label: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.text)

    def take(self, index: Tensor) -> Texts:
        """The samples with the given indices ``[M]``."""
        at = index.tolist()
        pair = tuple(self.pair[i] for i in at) if self.pair is not None else None
        return Texts(tuple(self.text[i] for i in at), pair, self.label[index], self.names)

    def numbered_as(self, names: tuple[str, ...]) -> Texts:
        """With the labels' places among other names, which have all of these."""
        places = torch.tensor([names.index(name) for name in self.names])
        return Texts(self.text, self.pair, places[self.label], names)

    def ordered(self, names: Sequence[str]) -> Texts:
        """With the classes in another order, if they are the same ones but for case; else as they are."""
        place = {name.casefold(): number for number, name in enumerate(names)}
        mine = [place.get(name.casefold(), -1) for name in self.names]
        if sorted(mine) != list(range(len(names))):
            return self
        return Texts(self.text, self.pair, torch.tensor(mine)[self.label], tuple(names))


@dataclass(frozen=True)
class TextSource:
    """Tokenised texts held in memory, the longest first; make one with :meth:`of`.

    The longest come first so that what does not fit in memory, or is longer than the model takes, shows
    in the first batch.

    Attributes:
        ids: ``[N, L]`` int64 token numbers, padded on the right.
        lengths: ``[N]`` int64, descending.
        labels: ``[N]`` int64.
        pad: the token number of padding.
        types: ``[N, L]`` int64 token types; None when the tokenizer makes none.
        truncated: ``[N]`` bool, texts of which tokens were left out; None when none were.
        name: what messages call it, e.g. ``calibration=``, where somebody gave it a name.
    """

    ids: Tensor
    lengths: Tensor
    labels: Tensor
    pad: int = 0
    types: Tensor | None = None
    truncated: Tensor | None = None
    name: str = ""

    @staticmethod
    def of(
        ids: Tensor,
        lengths: Tensor,
        labels: Tensor,
        *,
        pad: int = 0,
        types: Tensor | None = None,
        truncated: Tensor | None = None,
        name: str = "",
    ) -> TextSource:
        """Sort samples by length (the first of equals first) and cut to the longest; see the attributes."""
        order = torch.sort(lengths, descending=True, stable=True).indices
        width = int(lengths.max()) if len(lengths) else 0
        inside = torch.arange(width) < lengths[order].unsqueeze(1)
        # What lies behind a text's end must not tell two sources apart.
        return TextSource(
            ids=torch.where(inside, ids[order, :width], pad),
            lengths=lengths[order],
            labels=labels[order],
            pad=pad,
            types=None if types is None else torch.where(inside, types[order, :width], 0),
            truncated=None if truncated is None else truncated[order],
            name=name,
        )

    @staticmethod
    def from_batches(
        batches: Sequence[Mapping[str, Tensor]], labels: Tensor, *, name: str = ""
    ) -> TextSource:
        """From the named inputs of a user's own loader.

        Args:
            batches: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each ``[B, T]``.
            labels: ``[N]``.
            name: see the attributes.

        Raises:
            UserError: other inputs, no mask, or padding on the left.
        """
        found = {key for batch in batches for key in batch}
        if any(batch.keys() != found for batch in batches):
            raise UserError("some batches have other named inputs than the rest; give the same in all")
        if not {"input_ids", "attention_mask"} <= found <= _NAMED:
            raise UserError(
                "a loader of texts gives input_ids, attention_mask and perhaps token_type_ids, not "
                + ", ".join(sorted(found))
            )
        width = max(batch["input_ids"].shape[1] for batch in batches)

        def whole(name: str) -> Tensor:
            parts = [batch[name].long() for batch in batches]
            return torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[1])) for p in parts])

        mask = whole("attention_mask").bool()
        lengths = mask.sum(1)
        if not torch.equal(mask, torch.arange(width) < lengths.unsqueeze(1)):
            raise UserError("a loader of texts must pad on the right; set tokenizer.padding_side = 'right'")
        # The padding token is what the loader put behind the shorter texts of a batch.
        behind = [b["input_ids"][~b["attention_mask"].bool()] for b in batches]
        pad = next((int(tokens[0]) for tokens in behind if len(tokens)), 0)
        types = whole("token_type_ids") if "token_type_ids" in found else None
        return TextSource.of(whole("input_ids"), lengths, labels.long(), pad=pad, types=types, name=name)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(L,)``."""
        return (int(self.lengths.max()) if len(self) else 0,)

    def take(self, index: Tensor) -> TextSource:
        """The samples with the given indices ``[M]``, sorted by length, as a source of their own."""
        return TextSource.of(
            self.ids[index],
            self.lengths[index],
            self.labels[index],
            pad=self.pad,
            types=None if self.types is None else self.types[index],
            truncated=None if self.truncated is None else self.truncated[index],
            name=self.name,
        )

    def fingerprint(self) -> str:
        """A digest of tokens, types and labels: the same data gives the same text."""
        digest = hashlib.sha256(str((tuple(self.ids.shape), self.pad, self.types is not None)).encode())
        for part in (self.ids, self.lengths, self.labels, self.types):
            if part is not None:
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def defect(self) -> str | None:
        """See :class:`coprune.data.source.MemorySource`."""
        if len(self.ids) != len(self.labels):
            return f"{len(self.ids)} samples but {len(self.labels)} labels; they must be as many"
        empty = int((self.lengths < 1).sum())
        return f"no token in {empty} of {len(self)} texts; drop empty texts" if empty else None

    def unlike(self, heldout: TextSource) -> str | None:
        """See :class:`coprune.data.source.MemorySource`."""
        same = (self.pad, self.types is None) == (heldout.pad, heldout.types is None)
        return None if same else "training and held-out samples are of two tokenizers; use one for both"

    def _batch(self, index: slice | Tensor) -> Batch:
        lengths = self.lengths[index]
        width = int(lengths.max())
        # Copies: a model that changes its inputs must not change the data set.
        inputs = {
            "input_ids": self.ids[index, :width].clone(),
            "attention_mask": (torch.arange(width) < lengths.unsqueeze(1)).long(),
        }
        if self.types is not None:
            inputs["token_type_ids"] = self.types[index, :width].clone()
        return inputs, self.labels[index]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(self), batch_size):
            yield self._batch(slice(start, start + batch_size))

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        return steps_of(len(self), batch_size, fraction)

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, fraction: float = 1.0, skip: int = 0
    ) -> Iterator[Batch]:
        drawn, generator = drawn_order(len(self), seed=seed, epoch=epoch, fraction=fraction)
        chunk = torch.arange(len(drawn)) // (_CHUNK * batch_size)
        # By chunk, inside a chunk by length: only the last batch of the last chunk can be short.
        keys = chunk * (self.input_shape[0] + 1) + self.lengths[drawn]
        parts = drawn[torch.argsort(keys, stable=True)].split(batch_size)
        for at in torch.randperm(len(parts), generator=generator)[skip:].tolist():
            inputs, labels = self._batch(parts[at])
            yield part_of(inputs, own_part(len(labels))), labels


def open_tokenizer(where: str) -> Any:
    """The tokenizer of a folder or a hub id.

    Raises:
        UserError: 🤗 transformers is not installed, or there is no tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as cause:
        raise UserError("text data needs 🤗 transformers: pip install coprune[text]") from cause
    folder = Path(where).expanduser()
    if where.startswith((".", "/", "~")) and not folder.is_dir():
        raise UserError(f"no tokenizer in '{where}': no such folder")
    try:
        with quiet_hub():
            return AutoTokenizer.from_pretrained(
                str(folder) if folder.is_dir() else where, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as cause:
        said = str(cause).strip().splitlines()
        raise UserError(
            f"no tokenizer in '{where}' ({said[0] if said else type(cause).__name__}); "
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
    """
    pairs = {} if texts.pair is None else {"text_pair": list(texts.pair)}
    encoded = tokenizer(list(texts.text), **pairs, truncation=True, max_length=max_length, verbose=False)
    rows = encoded["input_ids"]
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    inside = torch.arange(int(lengths.max()) if len(rows) else 0) < lengths.unsqueeze(1)
    pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)

    def table(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        out = torch.full(inside.shape, fill, dtype=torch.int64)
        flat = np.fromiter(chain.from_iterable(values), np.int64, count=int(lengths.sum()))
        out[inside] = torch.from_numpy(flat)
        return out

    types = encoded.get("token_type_ids")
    details = getattr(encoded, "encodings", None)
    # A tokenizer in Python does not tell; what fills the whole length has most likely lost something.
    cut = [bool(e.overflowing) for e in details] if details else (lengths == max_length).tolist()
    return TextSource.of(
        table(rows, pad),
        lengths,
        texts.label,
        pad=pad,
        types=None if types is None else table(types, 0),
        truncated=torch.tensor(cut) if any(cut) else None,
    )
