"""Networks of Ultralytics, ``ultralytics:FILE.pt`` and ``ultralytics:NAME.yaml``, and back to ``YOLO``."""

from __future__ import annotations

from typing import Any

from torch import nn

from coprune.compat import ultralytics as compat
from coprune.compat.ultralytics import yolo
from coprune.models.names import ULTRALYTICS, ModelSource
from coprune.models.registry import remember

__all__ = ["fresh", "trained", "yolo"]


def fresh(name: str, *, num_classes: int | None = None, in_channels: int | None = None) -> nn.Module:
    """A network of one of the library's configurations, such as ``yolo11n.yaml``, with fresh weights.

    Raises:
        UserError: the library is not installed, or has no such configuration.
    """
    return compat.built(name, classes=num_classes, channels=in_channels)


def trained(name: str) -> nn.Module:
    """The network of ``ultralytics:FILE.pt``; it remembers its configuration where that is the library's.

    Raises:
        UserError: see :func:`coprune.compat.ultralytics.opened`.
    """
    model: Any = compat.opened(name.removeprefix(ULTRALYTICS))
    known = compat.configuration_of(model)
    shape = {"num_classes": model.yaml["nc"], "in_channels": model.yaml.get("channels", 3)}
    if known:
        remember(model, ModelSource(ULTRALYTICS + known, shape))
    return model
