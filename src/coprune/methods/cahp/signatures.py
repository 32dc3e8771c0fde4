"""A head's signature: class-conditional moments of its attention map, on a grid of one size.

CAHP (arXiv 2606.19150) describes an attention head by the maps it draws: of every sentence the map
is cropped to the real tokens, resized bilinearly to ``B × B``, and its mean and variance in every
class are accumulated. Resizing is linear in rows and in columns, so for a whole batch it is two
matrix products, ``R A Rᵀ``, with one small matrix ``R`` a sentence that also does the cropping; the
maps of one layer are read while the batch passes, and never kept.

Shapes: ``N`` samples, ``H`` heads of a layer, ``T`` tokens of a batch, ``B`` cells a side, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from coprune.data.sharding import OwnBatch
from coprune.errors import UserError
from coprune.groups import ChannelGroup
from coprune.statistics import Calibration
from coprune.statistics.class_moments import GroupMoments
from coprune.statistics.collect import Reads
from coprune.statistics.moments import Moments
from coprune.tracing.hooks import Hook, hooked

VARIANCE_FLOOR = 1e-6
"""CAHP's: of every class variance, and the variance of a class with fewer than two samples."""


@dataclass(frozen=True)
class HeadSignatures:
    """Mean and variance per class of every head's attention map.

    Where several query heads share a key and a value (grouped-query attention), the unit is the
    key/value head and its map is the mean over its query heads. Of layers that can only lose the same
    heads together (one group), the first layer's maps are read. Where an image is attended to
    window by window (Swin), its map is the mean over the windows.

    Attributes:
        grid: cells a side of the resized map; CAHP's 32, 48 for long pairs of sentences.
    """

    grid: int = 32
    reads: ClassVar[Reads] = "classes"

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"head_signatures-grid{self.grid}"

    def collect(self, calibration: Calibration) -> SignatureCollector:
        """See :class:`coprune.statistics.Statistic`."""
        return SignatureCollector(self, heads_of(calibration.groups), classes=calibration.class_count)

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> Moments:
        """Moments ``[C, H, B²]`` of a layer's maps."""
        return Moments.named(tensors, group.name)


def heads_of(groups: tuple[ChannelGroup, ...]) -> tuple[ChannelGroup, ...]:
    """Those groups whose units are attention heads."""
    return tuple(g for g in groups if g.kind == "heads")


def resize_matrices(lengths: Tensor, tokens: int, grid: int, *, dtype: torch.dtype) -> Tensor:
    """Linear interpolation from the first ``n`` of ``tokens`` values to ``grid``, a matrix a sample.

    As :func:`torch.nn.functional.interpolate` with ``align_corners=False``: cell ``b`` lies at
    ``(b + ½) n/B − ½``, held within the first and the last value, and a value at distance ``d`` from
    it weighs ``max(0, 1 − d)``. Behind the last real token every weight is 0.

    Args:
        lengths: real tokens ``n`` of every sample, ``[N]``, at least 1.
        tokens: ``T``.
        grid: ``B``.
        dtype: of the result.

    Returns:
        ``[N, B, T]``.
    """
    n = lengths.double().view(-1, 1)
    cell = torch.arange(grid, dtype=torch.float64, device=lengths.device)
    place = ((cell + 0.5) * (n / grid) - 0.5).clamp_min(0).minimum(n - 1)
    token = torch.arange(tokens, dtype=torch.float64, device=lengths.device)
    return (1 - (place.unsqueeze(2) - token).abs()).clamp_min(0).to(dtype)


def resized(maps: Tensor, lengths: Tensor, grid: int) -> Tensor:
    """Attention maps, cropped to the real tokens and resized.

    Args:
        maps: ``[N, H, T, T]``, at least float32.
        lengths: real tokens of every sample, ``[N]``; they come first.
        grid: ``B``.

    Returns:
        ``[N, H, B, B]`` in the dtype of the maps.
    """
    r = resize_matrices(lengths, maps.shape[-1], grid, dtype=maps.dtype)
    return torch.einsum("nas,nhsb->nhab", r, torch.einsum("nhst,nbt->nhsb", maps, r))


def real_tokens(mask: Tensor) -> Tensor:
    """Number of real tokens of every sample, ``[N]``.

    Args:
        mask: ``[N, T]``, 1 where a token is real.

    Raises:
        UserError: padding that is not on the right, or a sample without tokens.
    """
    if mask.ndim != 2:
        raise UserError(
            f"attention_mask has shape {list(mask.shape)}; head signatures need one of [samples, tokens]"
        )
    lengths = (mask != 0).sum(1)
    right = torch.arange(mask.shape[1], device=mask.device) < lengths.unsqueeze(1)
    if not torch.equal(right, mask != 0) or not bool(lengths.all()):
        raise UserError(
            "attention_mask has padding before real tokens, or samples without any; "
            "head signatures need padding on the right (tokenizer.padding_side='right')"
        )
    return lengths


def head_maps(maps: Tensor, heads: int) -> Tensor:
    """Maps of the units, the mean over the query heads of each.

    Args:
        maps: ``[N, Q, T, T]`` with ``Q`` a multiple of ``heads``; query heads of a unit follow one another.
        heads: ``H``.

    Returns:
        ``[N, H, T, T]``.
    """
    return maps if maps.shape[1] == heads else maps.unflatten(1, (heads, -1)).mean(2)


class SignatureCollector(GroupMoments):
    """Reads attention maps while a batch passes; see :class:`HeadSignatures`.

    Fused attention never forms the maps, so the model computes attention the plain way (``eager`` in
    🤗 transformers, ``fused_attn = False`` in timm) while hooks are attached.
    """

    _lengths: Tensor | None = None

    def start_batch(self, batch: OwnBatch) -> None:
        """See :class:`coprune.statistics.collect.Collector`."""
        super().start_batch(batch)
        mask = batch.inputs.get("attention_mask") if isinstance(batch.inputs, dict) else None
        self._lengths = None if mask is None else real_tokens(mask)

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """See :class:`coprune.statistics.collect.Collector`."""
        behind: list[tuple[str, Hook]] = []
        for group in self._groups:
            # timm, MPNet and DeBERTa keep their maps to themselves, but pass them through a dropout
            # of the attention module's own, which changes nothing in evaluation mode.
            dropped: list[Tensor] = []
            for name, part in model.get_submodule(group.name).named_children():
                if isinstance(part, nn.Dropout):
                    path = f"{group.name}.{name}".removeprefix(".")
                    behind.append((path, lambda _, __, output, dropped=dropped: dropped.append(output)))
            behind.append((group.name, partial(self._see, group, dropped)))
        with _computing_plainly(model), hooked(model, behind):
            yield

    def _see(self, group: ChannelGroup, dropped: list[Tensor], _: nn.Module, __: Any, output: Any) -> None:
        handed_out = output if isinstance(output, tuple) else (output,)
        maps = _map_among((*handed_out, *dropped), group)
        dropped.clear()
        n, tokens = len(self._labels), maps.shape[-1]
        windows = len(maps) // n
        fits = windows * n == len(maps) and (windows == 1 or self._lengths is None)
        if not fits or (self._lengths is not None and int(self._lengths.max()) > tokens):
            raise UserError(
                f"{group.name}: attention maps {list(maps.shape)} do not cover the {n} samples' real tokens; "
                "choose a method that does not read them, such as michel or head_magnitude"
            )
        lengths = self._lengths
        if lengths is None:
            lengths = torch.full((n,), tokens, device=maps.device)
        wide = head_maps(maps.detach().to(torch.promote_types(maps.dtype, torch.float32)), group.size)
        if windows > 1:
            wide = wide.unflatten(0, (n, windows)).mean(1)
        self.add(group, resized(wide, lengths, self._wanted.grid).flatten(2))


@contextmanager
def _computing_plainly(model: nn.Module) -> Iterator[None]:
    """Within the context fused attention is off."""
    with ExitStack() as changes:
        for module in model.modules():
            config = getattr(module, "config", None)
            for holder, attribute, plain in (
                (config, "_attn_implementation", "eager"),
                (module, "fused_attn", False),
            ):
                value = getattr(holder, attribute, plain)
                if value != plain:  # modules share their config: the first one met changes it
                    changes.callback(setattr, holder, attribute, value)
                    setattr(holder, attribute, plain)
        yield


def _map_among(values: tuple[Any, ...], group: ChannelGroup) -> Tensor:
    """The first attention map ``[N, Q, T, T]`` among several values.

    Raises:
        UserError: there is none.
    """
    for value in values:
        if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[1] % group.size:
            continue
        first = value[:, :, 0].float()  # what the first token attends to: it is real in every sample
        # Other values have that shape too, such as T5's table of relative positions. NaN passes: what
        # the model returns is checked for it, with a message of its own.
        foreign = (first < 0).any() | ((first.sum(-1) - 1).abs() > 0.01).any()
        if value.shape[-1] == value.shape[-2] and not bool(foreign):
            return value
    raise UserError(
        f"{group.name} hands out no attention maps of its {group.size} heads; "
        "choose a method that does not read them, such as michel or head_magnitude"
    )
