"""What the consumers of a group read, value by value: mean, variance, and the weights that read it.

The diagonal of what :mod:`coprune.statistics.input_covariance` gathers, at all places that count instead of
some that are drawn, and without gradients.

Shapes: ``U`` units, ``S`` values of a unit that a consumer reads (channels of a head, pixels of a flattened
map), ``I`` values that a layer reads, ``O`` its outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from coprune.groups import ChannelGroup, unit_axis
from coprune.layers import filters
from coprune.statistics.collect import Calibration, Gatherer, Reads
from coprune.statistics.fisher import active_positions
from coprune.tracing.hooks import hooked


@dataclass(frozen=True)
class Inputs:
    """What one consumer reads of a group, over all samples and places (pixels, tokens).

    Attributes:
        count: how many samples and places.
        mean: ``[U, S]`` float64.
        m2: sum of squared deviations from the mean, ``[U, S]``.
        weight_l1: ``Σ_i |W_ij|`` over the consumer's outputs and the positions of its kernel, ``[U, S]``.
        weight_square: ``Σ_i W_ij²``, ``[U, S]``.
    """

    count: float
    mean: Tensor
    m2: Tensor
    weight_l1: Tensor
    weight_square: Tensor

    @property
    def variance(self) -> Tensor:
        """Sample variance, ``[U, S]``."""
        return self.m2 / max(self.count - 1, 1)

    @property
    def norm(self) -> Tensor:
        """``‖x_j‖₂`` over all samples and places, ``[U, S]``."""
        return (self.m2 + self.count * self.mean.square()).sqrt()


@dataclass(frozen=True)
class InputMoments:
    """Mean and variance of every value that a consumer reads, and the norms of the weights that read it.

    Padding, and tokens that do not reach the output (:mod:`coprune.tracing.active_positions`), do not count.
    """

    key: ClassVar[str] = "input_moments"
    reads: ClassVar[Reads] = "nothing"

    def collect(self, calibration: Calibration) -> InputMomentsCollector:
        """See :class:`coprune.statistics.Statistic`."""
        return InputMomentsCollector(calibration)

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> tuple[Inputs, ...]:
        """What each of its consumers reads of a group."""
        found = []
        for layer, channels in group.channels("consumer").items():
            parts = (tensors[f"{layer}/{part}"][channels] for part in ("mean", "m2", "l1", "square"))
            found.append(Inputs(float(tensors[f"{layer}/count"]), *parts))
        return tuple(found)


class InputMomentsCollector(Gatherer):
    """Adds up over all places that count; a layer that several groups are read by is seen once."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self._active, groups = calibration.once(active_positions), calibration.groups
        self._keys = {layer: f"{g.name}/{layer}" for g in groups for layer in g.channels("consumer")}
        self._weights: dict[str, Tensor] = {}

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """See :class:`coprune.statistics.collect.Collector`."""
        for layer in self._keys:
            columns = filters(model.get_submodule(layer)).detach().transpose(0, 1).flatten(1).double().cpu()
            self._weights[f"{layer}/l1"] = columns.abs().sum(1)
            self._weights[f"{layer}/square"] = columns.square().sum(1)
        hooks = {layer: partial(self._add, layer) for layer in self._keys}
        with hooked(model, hooks, before=True):
            yield

    def _add(self, name: str, layer: nn.Module, inputs: Sequence[Tensor]) -> None:
        rows = inputs[0].detach().movedim(unit_axis(layer), -1)
        valid = self._active.get(self._keys[name])
        if valid is None:
            rows = rows.flatten(0, -2)
        else:
            rows = rows.reshape(self._samples, -1, rows.shape[-1])[valid[self._number].to(rows.device)]
        rows = rows.double()
        mean, count = rows.mean(0), rows.new_tensor(float(len(rows)))
        self._take(name, {"count": count, "mean": mean, "m2": (rows - mean).square().sum(0)})

    def tensors(self) -> dict[str, Tensor]:
        """``LAYER/count``, ``LAYER/mean``, ``LAYER/m2``, ``LAYER/l1`` and ``LAYER/square``, ``[I]`` each."""
        return super().tensors() | self._weights
