"""torchvision's detectors: what is relied on that its documentation does not promise.

They hand back boxes after suppression, as many as there happen to be, so two networks cannot be compared by
them. What their heads say of every place of a picture can be: it is read on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from coprune.tracing.hooks import hooked

_PACKAGE = "torchvision.models.detection"

_ONE_STAGE = ("RetinaNet", "FCOS", "SSD")

_HEADS = {"GeneralizedRCNN": ("backbone", "rpn.head")} | dict.fromkeys(_ONE_STAGE, ("head",))
"""Class → the modules whose outputs count. Of two stages the first: the second reads whatever places the
first has proposed, which differ from network to network; the maps that it reads them from count instead."""


class Detections(list[Any]):
    """What a detector hands back, as it is, and beside it what its heads said.

    Attributes:
        heads: a tree of tensors, each with the samples first.
    """

    def __init__(self, boxes: list[Any], heads: Any) -> None:
        super().__init__(boxes)
        self.heads = heads


def heads_of(model: nn.Module) -> tuple[str, ...]:
    """The modules of a detector whose outputs count; nothing of any other network."""
    kinds = (kind for kind in type(model).__mro__ if kind.__module__.startswith(_PACKAGE))
    return next((_HEADS[kind.__name__] for kind in kinds if kind.__name__ in _HEADS), ())


@contextmanager
def with_heads(model: nn.Module) -> Iterator[Callable[[Any], Any]]:
    """Within the context a detector's heads are listened to; the function puts them beside its output."""
    names = heads_of(model)
    if not names:
        yield lambda output: output
        return
    said: list[Any] = []
    with hooked(model, {name: lambda _layer, _inputs, output: said.append(output) for name in names}):
        yield lambda output: Detections(output, list(said)) if isinstance(output, list) else output
