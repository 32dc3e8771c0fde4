"""Labels of the tensors of a pass, and what is noted of channels on the way.

Shapes: ``C`` channels of a layer's input or output.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coprune.groups.labels import Ties, blank, compact, varies
from coprune.groups.pairs import Axis, Pairs
from coprune.groups.sizes import Attribute
from coprune.skipped import Reason, SkipCode, because
from coprune.tracing.forward import tensors_of

_LABELS = "_coprune_labels"


class Labelled:
    """Which channel every value of every tensor is of, and which channels go together.

    Args:
        model: its bare parameters have channels too.
        layers: names of those whose channels are known.

    Attributes:
        pairs: what goes together, and why some cannot go.
        ties: of labels; :meth:`finish` hands them on.
    """

    def __init__(self, model: nn.Module, layers: Collection[str]) -> None:
        self.pairs, self.ties = Pairs(model), Ties()
        self._layers = layers
        self._reasons: list[Reason] = []
        self._parameters = {id(p): name for name, p in model.named_parameters()}

    def finish(self) -> Pairs:
        """The pairs, with all that the labels say."""
        for pairs, gated in self.ties.pairs:
            self.pairs.tie(*pairs.long().numpy().T, gated=gated)
        for pairs in self.ties.fixed:
            for label in pairs[:, 1].unique():
                channels = pairs[pairs[:, 1] == label, 0]
                self.pairs.refuse(channels, self._reasons[-2 - int(label)])
        return self.pairs

    def fixed(self, reason: Reason) -> Tensor:
        """The one label of values of a width that cannot change."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return blank((), -2.0 - self._reasons.index(reason))

    def labels(self, tensor: Tensor) -> Tensor:
        """Of a tensor's values, of its shape."""
        if isinstance(tensor, nn.Parameter) and id(tensor) in self._parameters:
            return self._of_parameter(tensor)
        labels = vars(tensor).get(_LABELS)
        return labels if labels is not None and labels.shape == tensor.shape else blank(tensor.shape)

    def give(self, made: Any, labels: Tensor) -> None:
        """Label tensors with what can be broadcast to their shape; of others it says nothing."""
        for tensor in tensors_of(made):
            behind = zip(reversed(labels.shape), reversed(tensor.shape), strict=False)
            fits = labels.ndim <= tensor.ndim and all(own in (1, size) for own, size in behind)
            vars(tensor)[_LABELS] = compact(labels.expand(tensor.shape)) if fits else blank(tensor.shape)

    def fix(self, made: Any, reason: Reason) -> None:
        """Label tensors as of a width that cannot change."""
        self.give(made, self.fixed(reason))

    def refuse(self, given: Any, reason: Reason) -> None:
        """Leave whole what tensors have channels of."""
        for tensor in tensors_of(given):
            labels = self.labels(tensor)
            self.pairs.refuse(labels[labels >= 0].unique(), reason)

    def meet(self, given: Tensor, where: int, axis: Axis | None, layer: str) -> None:
        """What a layer reads goes with its own channels, where they are as many."""
        if axis is None or axis.size != given.shape[where]:
            self.refuse(given, because(SkipCode.UNPAIRED, layer=layer))
        else:
            self.ties.tie(self.labels(given), along(given.shape, where, axis))

    def tie_attribute(self, size: object, labels: Tensor, axis: int) -> None:
        """Where a size is said by an attribute, that counts channels: it loses one with each of them."""
        if isinstance(size, Attribute) and labels.shape[axis] == size and varies(labels, axis):
            counts = self.pairs.axis(size.layer, "output", size.name)
            if counts is not None:
                self.ties.tie(labels, along(labels.shape, axis, counts))

    def _of_parameter(self, parameter: nn.Parameter) -> Tensor:
        """A bare parameter has channels along the one axis that it has."""
        name = self._parameters[id(parameter)]
        layer, _, own = name.rpartition(".")
        wide = [d for d, n in enumerate(parameter.shape) if n > 1]
        if layer in self._layers or len(wide) > 1:
            why = because(SkipCode.SEVERAL_AXES, parameter=name)
            if layer in self._layers:
                self.pairs.refuse(nodes(self.pairs.axis(layer, "output")), why)
            return self.fixed(why).expand(parameter.shape)
        axis = self.pairs.axis(layer, "output", own) if wide else None
        return along(parameter.shape, wide[0] if wide else 0, axis)


def nodes(axis: Axis | None) -> Tensor:
    """Labels of an axis's channels, ``[C]``."""
    return torch.empty(0) if axis is None else torch.from_numpy(axis.channels).double()


def along(shape: Sequence[int], axis: int, channels: Axis | Tensor | None) -> Tensor:
    """Labels that differ along one axis only, if at all: those of channels, ``[C]``."""
    if channels is None:
        return blank(shape)
    labels = channels if isinstance(channels, Tensor) else nodes(channels)
    axis %= len(shape)
    return labels.view([-1 if d == axis else 1 for d in range(len(shape))]).expand(tuple(shape))
