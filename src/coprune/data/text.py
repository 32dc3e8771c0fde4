"""Labelled texts: as they are read, and as the tokens that a model reads.

Shapes: ``N`` samples, ``L`` tokens of the longest, ``B`` samples of a batch, ``T`` tokens of the longest
of a batch.

Texts are of very different lengths, and a padding token costs as much as any other. Samples are
therefore stored by length, and every batch is cut to its own longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coprune.data.source import MemorySource, Part, digest, drawn_order
from coprune.errors import UserError
from coprune.tracing.forward import Inputs, mapped, part_of, tensors_of

_CHUNK = 50
"""Batches of training that are sorted by length together: enough to pad little, few enough to mix."""

_NAMED = {"input_ids", "attention_mask", "token_type_ids"}


@dataclass(frozen=True)
class Texts:
    """Texts as they were read.

    Attributes:
        text: ``N`` texts; or the words of each.
        pair: the second text of every sample, or None.
        labels: ``[N]`` int64, places in ``names``; None without.
        names: what the classes are called.
        values: where there are no labels, a number a sample, a tag a word (a place in ``names``), or first
            character and end of the answer in the second text; or None.
    """

    text: tuple[Any, ...]
    pair: tuple[str, ...] | None = None
    labels: Tensor | None = None
    names: tuple[str, ...] = ()
    values: tuple[Any, ...] | None = None

    @property
    def tagged(self) -> bool:
        """Whether every word has a tag."""
        return bool(self.values) and isinstance(self.text[0], tuple)

    def __len__(self) -> int:
        return len(self.text)

    def take(self, index: Tensor) -> Texts:
        """The samples with the given indices ``[M]``."""
        at = index.tolist()
        columns = (self.text, self.pair, self.values)
        text, pair, values = (column and tuple(column[i] for i in at) for column in columns)
        return Texts(text or (), pair, part_of(self.labels, index), self.names, values)

    def numbered_as(self, names: Sequence[str]) -> Texts:
        """With the labels' places among other names, which have all of these."""
        places = [names.index(name) for name in self.names]
        if self.labels is not None:
            return replace(self, labels=torch.tensor(places)[self.labels], names=tuple(names))
        if not self.tagged:
            return self
        tags = tuple(tuple(places[tag] for tag in tags) for tags in self.values or ())
        return replace(self, values=tags, names=tuple(names))

    def ordered(self, names: Sequence[str]) -> Texts:
        """With the classes in another order, if they are the same ones but for case; else as they are."""
        mine, theirs = ([name.casefold() for name in given] for given in (self.names, names))
        if sorted(mine) != sorted(set(theirs)):
            return self
        return replace(self, names=tuple(names[theirs.index(name)] for name in mine)).numbered_as(names)


def table(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of numbers as one table ``[N, L]`` int64, the shorter ones filled on the right."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    inside = torch.arange(max(map(len, rows), default=0)) < lengths.unsqueeze(1)
    out = torch.full(inside.shape, fill, dtype=torch.int64)
    out[inside] = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64))
    return out


@dataclass(frozen=True)
class TextSource(MemorySource):
    """Tokenised texts held in memory, the longest first; make one with :meth:`of`.

    The longest come first so that what does not fit in memory, or is longer than the model takes, shows
    in the first batch.

    Attributes:
        ids: ``[N, L]`` int64 token numbers, padded on the right.
        lengths: ``[N]`` int64, descending.
        labels: class numbers ``[N]`` int64; None without.
        pad: the token number of padding.
        types: ``[N, L]`` int64 token types; None when the tokenizer makes none.
        truncated: ``[N]`` bool, texts of which tokens were left out; None when none were.
        values: targets that are no class numbers, a tree of ``[N, …]``; whole ``[N, L]`` are of tokens.
        recombined: share of the texts which in training end as another one of their batch does; for those
            who read no targets.
        name: what messages call it, e.g. ``calibration=``, where somebody gave it a name.
    """

    ids: Tensor
    lengths: Tensor
    labels: Tensor | None
    pad: int = 0
    types: Tensor | None = None
    truncated: Tensor | None = None
    values: Any = None
    recombined: float = 0.0
    name: str = ""

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of(cls, *given: Any, **named: Any) -> TextSource:
        """Sort samples by length (the first of equals first) and cut to the longest; see the attributes."""
        source = cls(*given, **named)
        return source.take(torch.arange(len(source.lengths)))

    @staticmethod
    def from_batches(
        batches: Sequence[Mapping[str, Tensor]], labels: Tensor | None, *, name: str = ""
    ) -> TextSource:
        """From the named inputs of a user's own loader.

        Args:
            batches: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each ``[B, T]``.
            labels: ``[N]``, or None.
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
        rows = {key: [row for batch in batches for row in batch[key].long().tolist()] for key in found}
        whole = {key: table(of_key, 0) for key, of_key in rows.items()}
        mask = whole["attention_mask"].bool()
        lengths = mask.sum(1)
        if not torch.equal(mask, torch.arange(mask.shape[1]) < lengths.unsqueeze(1)):
            raise UserError("a loader of texts must pad on the right; set tokenizer.padding_side = 'right'")
        # The padding token is what the loader put behind the shorter texts of a batch.
        behind = [b["input_ids"][~b["attention_mask"].bool()] for b in batches]
        pad = next((int(tokens[0]) for tokens in behind if len(tokens)), 0)
        types = whole.get("token_type_ids")
        return TextSource.of(whole["input_ids"], lengths, labels, pad=pad, types=types, name=name)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(L,)``."""
        return (int(self.lengths.max()) if len(self) else 0,)

    def take(self, index: Tensor) -> TextSource:
        """The samples with the given indices ``[M]``, sorted by length, as a source of their own."""
        at = index[torch.sort(self.lengths[index], descending=True, stable=True).indices]
        lengths = self.lengths[at]
        width = int(lengths.max()) if len(at) else 0
        inside = torch.arange(width) < lengths.unsqueeze(1)
        labels, truncated = part_of((self.labels, self.truncated), at)
        # What lies behind a text's end must not tell two sources apart.
        return replace(
            self,
            ids=torch.where(inside, self.ids[at, :width], self.pad),
            lengths=lengths,
            labels=labels,
            types=None if self.types is None else torch.where(inside, self.types[at, :width], 0),
            truncated=truncated,
            values=self._values(at, width),
        )

    def numbered(self) -> TextSource:
        """With the numbers of the samples for targets."""
        return replace(self, labels=None, values=torch.arange(len(self)))

    def _values(self, index: Tensor, width: int) -> Any:
        """Targets of some samples, those of tokens as wide as the longest of them."""
        full = self.ids.shape[1]

        def cut(t: Tensor) -> Tensor:
            of_tokens = t.ndim > 1 and t.shape[1] == full and not t.is_floating_point()
            return t[index, :width] if of_tokens else t[index]

        return mapped(self.values, cut)

    def targets(self, index: Tensor) -> Any:
        """See :class:`~coprune.data.source.MemorySource`."""
        if self.labels is not None:
            return self.labels[index]
        return self._values(index, int(self.lengths[index].max()))

    def fingerprint(self) -> str:
        """A digest of tokens, types and labels: the same data gives the same text."""
        kind = str((tuple(self.ids.shape), self.pad, self.types is not None))
        return digest(kind, *tensors_of((self.ids, self.lengths, self.labels, self.types, self.values)))

    def validation_error(self) -> str | None:
        """See :class:`~coprune.data.source.MemorySource`."""
        empty = int((self.lengths < 1).sum())
        return f"no token in {empty} of {len(self)} texts; drop empty texts" if empty else None

    def incompatibility(self, heldout: TextSource) -> str | None:
        """See :class:`~coprune.data.source.MemorySource`."""
        same = (self.pad, self.types is None) == (heldout.pad, heldout.types is None)
        return None if same else "training and held-out samples are of two tokenizers; use one for both"

    def inputs(self, parts: Sequence[Part], draw: Callable[[int], int] | None = None) -> Iterator[Inputs]:
        """See :class:`~coprune.data.source.MemorySource`; every batch is as wide as its longest text."""
        for part in parts:
            lengths = self.lengths[part.index]
            width = int(lengths.max())
            rows = [t[part.index, :width] for t in (self.ids, self.types) if t is not None]
            if draw is not None and self.recombined > 0:
                generator = torch.Generator().manual_seed(draw(part.step))
                at, lengths = _recombination(lengths, share=self.recombined, generator=generator)
                rows = [t.flatten()[at] for t in rows]
            inside = torch.arange(width) < lengths.unsqueeze(1)
            named = {"input_ids": rows[0].where(inside, self.pad), "attention_mask": inside.long()}
            if self.types is not None:
                named["token_type_ids"] = rows[1].where(inside, 0)
            yield part_of(named, part.own)

    def order(self, batch_size: int, *, seed: int, epoch: int, fraction: float) -> Sequence[Tensor]:
        """See :class:`~coprune.data.source.MemorySource`; texts of about one length make a batch."""
        drawn, generator = drawn_order(len(self), seed=seed, epoch=epoch, fraction=fraction)
        chunk = torch.arange(len(drawn)) // (_CHUNK * batch_size)
        # By chunk, inside a chunk by length: only the last batch of the last chunk can be short.
        keys = chunk * (self.input_shape[0] + 1) + self.lengths[drawn]
        parts = drawn[torch.argsort(keys, stable=True)].split(batch_size)
        return [parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()]


def _recombination(lengths: Tensor, *, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The beginnings of some texts of a batch, and the ends of others behind them.

    Both are cut after the same part of their length and keep their first and last token, perhaps special.

    Args:
        lengths: ``[B]``.
        share: of the texts that are recombined.
        generator: draws which, with whose end, and where they are cut.

    Returns:
        Where every token comes from in the batch's table, flattened, ``[B, T]`` int64, and the new lengths.
    """
    count, width = len(lengths), int(lengths.max())
    partner = torch.randperm(count, generator=generator)
    chance, cut = torch.rand(2, count, generator=generator)
    shorter = torch.minimum(lengths, lengths[partner])
    head, end = ((cut * n).long().clamp_min(1) for n in (lengths, lengths[partner]))
    place, own = torch.arange(width), torch.arange(count)
    behind = (place - (head - end).unsqueeze(1)).clamp_max(width - 1) + width * partner.unsqueeze(1)
    chosen = (chance < share) & (shorter > 1)
    taken = chosen.unsqueeze(1) & (place >= head.unsqueeze(1))
    at = torch.where(taken, behind, place + width * own.unsqueeze(1))
    return at, torch.where(chosen, head - end + lengths[partner], lengths)
