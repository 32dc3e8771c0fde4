"""Labels of the tensors of a pass, and what is noted of channels on the way.

Shapes: ``C`` channels of a layer's input or output.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from coprune.groups.labels import Ties, blank, varies
from coprune.groups.pairs import Axis, Pairs
from coprune.groups.sizes import Attribute
from coprune.skipped import Reason, SkipCode, because

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
        self._of_parameters: dict[int, Tensor] = {}

    def finish(self) -> Pairs:
        """The pairs, with all that the labels say."""
        for pairs, gated in self.ties.pairs:
            self.pairs.tie(*pairs.long().numpy().T, gated=gated)
        for pairs in self.ties.fixed:
            for label in pairs[:, 1].unique():
                channels = pairs[pairs[:, 1] == label, 0]
                self.pairs.refuse_channels(channels, self._reasons[-2 - int(label)])
        return self.pairs

    def fixed(self, reason: Reason) -> float:
        """The label of values of a width that cannot change."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return -2.0 - self._reasons.index(reason)

    def labels(self, tensor: Tensor) -> Tensor:
        """Of a tensor's values, of its shape."""
        if isinstance(tensor, nn.Parameter) and id(tensor) in self._parameters:
            if id(tensor) not in self._of_parameters:
                self._of_parameters[id(tensor)] = self._of_parameter(tensor)
            return self._of_parameters[id(tensor)]
        labels = vars(tensor).get(_LABELS)
        return labels if labels is not None and labels.shape == tensor.shape else blank(tensor.shape)

    def give(self, tensor: Tensor, labels: Tensor) -> None:
        """Label a tensor; labels of another shape say nothing of it."""
        vars(tensor)[_LABELS] = labels if labels.shape == tensor.shape else blank(tensor.shape)

    def _of_parameter(self, parameter: nn.Parameter) -> Tensor:
        """A bare parameter has channels along the one axis that it has."""
        name = self._parameters[id(parameter)]
        layer, _, own = name.rpartition(".")
        wide = [d for d, n in enumerate(parameter.shape) if n > 1]
        if layer in self._layers or len(wide) > 1:
            if layer in self._layers:
                self.pairs.refuse(layer, because(SkipCode.SEVERAL_AXES, parameter=name))
            return blank(parameter.shape, self.fixed(because(SkipCode.SEVERAL_AXES, parameter=name)))
        axis = self.pairs.axis(layer, "output", own) if wide else None
        return along(parameter.shape, wide[0], nodes(axis)) if axis else blank(parameter.shape)

    def refuse(self, labels: Tensor, reason: Reason) -> None:
        """Leave whole what has these labels."""
        self.pairs.refuse_channels(labels[labels >= 0].unique(), reason)

    def tie_attribute(self, size: Attribute, labels: Tensor, axis: int) -> None:
        """An attribute counts channels: it loses one with each of them."""
        if varies(labels, axis):
            counts = self.pairs.axis(size.layer, "output", size.name)
            if counts is not None:
                self.ties.tie(labels, along(labels.shape, axis, nodes(counts)))


def nodes(axis: Axis | None) -> Tensor:
    """Labels of an axis's channels, ``[C]``."""
    return torch.empty(0) if axis is None else torch.from_numpy(axis.channels).double()


def along(shape: Sequence[int], axis: int, nodes: Tensor) -> Tensor:
    """Labels that differ along one axis only."""
    axis %= len(shape)
    return nodes.view([-1 if d == axis else 1 for d in range(len(shape))]).expand(tuple(shape))
