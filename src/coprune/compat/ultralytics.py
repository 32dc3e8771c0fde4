"""Ultralytics' networks: what is relied on that its documentation does not promise.

The library is licensed under AGPL-3.0, so it is an extra, and imported only when its networks are asked for.
Its ``.pt`` files are pickles of whole models: they are read by its own loader with ``weights_only``, which
makes nothing but layers that the library and PyTorch have.
"""

from __future__ import annotations

import logging
import pickle
import re
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from coprune.compat import quiet
from coprune.errors import UserError, first_line, near_matches
from coprune.lazy import required
from coprune.tracing.forward import FAILURES

VERSIONS = ((8, 4), (8, 5))
"""The first version that is known, and the first that is not."""


def library() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    return required("ultralytics", "ultralytics: models need Ultralytics (AGPL-3.0)", extra="detection")


quietly = partial(quiet, "ultralytics", below=logging.ERROR)
"""Without the library's log, but for its errors."""


def configurations() -> list[str]:
    """Names of the configurations in the library, such as ``yolo11.yaml``, without their sizes."""
    folder = Path(library().__file__).parent / "cfg" / "models"
    return sorted(path.name for path in folder.rglob("*.yaml"))


def is_configuration(name: str) -> bool:
    """Whether a name is that of a configuration of the library, with or without a size: ``yolo11n.yaml``."""
    known = configurations()
    return name in known or re.sub(r"(\d)[nsmblxtce](?=[-.])", r"\1", name, count=1) in known


def built(name: str, *, classes: int | None = None, channels: int | None = None) -> nn.Module:
    """A network of a configuration with fresh weights.

    Raises:
        UserError: the library has no configuration of that name (with near matches).
    """
    if not is_configuration(name):
        raise UserError(f"unknown model 'ultralytics:{name}'; {near_matches(name, configurations())}")
    with quietly():
        net: Any = _front(name).model
        asked = {"nc": classes or net.yaml["nc"], "ch": channels or net.yaml["channels"]}
        if asked != {"nc": net.yaml["nc"], "ch": net.yaml["channels"]}:
            made = type(net)({**deepcopy(net.yaml), "channels": asked["ch"]}, verbose=False, **asked)
            made.args, made.task = net.args, net.task
            net = made
    return net.float().eval()


def opened(file: str) -> nn.Module:
    """The network of a ``.pt`` file, float32; one that the library publishes is downloaded by its name.

    Raises:
        UserError: missing, damaged, or with anything in it that is no layer.
    """
    library()
    from ultralytics.nn.tasks import torch_safe_load

    try:
        with quietly():
            content, _ = torch_safe_load(file, safe_only=True)
    except (*FAILURES, OSError, ImportError, EOFError, pickle.UnpicklingError) as cause:
        raise UserError(f"ultralytics:{file}: cannot be opened ({first_line(cause)})") from cause
    model: Any = (content.get("ema") or content.get("model")) if isinstance(content, dict) else None
    if not callable(getattr(model, "state_dict", None)):
        raise UserError(f"ultralytics:{file}: holds no model of Ultralytics; give a .pt that it has saved")
    model.args = {**(content.get("train_args") or {})}
    model.criterion = None
    return model.float().eval().requires_grad_(True)


def configuration_of(model: Any) -> str:
    """The library's own configuration that a network was made by; empty where it is not its own."""
    name = Path(str(model.yaml.get("yaml_file", ""))).name
    return name if name and is_configuration(name) else ""


def yolo(model: nn.Module) -> Any:
    """A (pruned) network of Ultralytics as ``YOLO``: to validate, predict, train, export.

    ``train`` goes on from these weights and sizes, where the library would build the full network anew.

    Args:
        model: is copied.

    Raises:
        UserError: it is none of the library's.
    """
    library()
    if not hasattr(model, "yaml") or not type(model).__module__.startswith("ultralytics."):
        raise UserError(f"this {type(model).__name__} is no network of Ultralytics")
    net: Any = _plain_copy(model)
    with quietly():
        front = _front(configuration_of(net) or "yolo11n.yaml", net)
    args = getattr(net, "args", None) or {}
    net.args = {**front.model.args, **(args if isinstance(args, dict) else vars(args))}
    net.task = front.task = getattr(net, "task", front.task)
    front.model = net
    return front


def _plain_copy(model: nn.Module) -> nn.Module:
    """A copy that knows nothing of coprune, so that its files need it not."""
    made = deepcopy(model)
    for name in [n for n in vars(made) if n.startswith("_coprune")]:
        delattr(made, name)
    return made


def _front(name: str, net: nn.Module | None = None) -> Any:
    """``YOLO`` (or ``RTDETR``) of a configuration; of a network, one that trains that."""
    from ultralytics import RTDETR, YOLO

    kind = RTDETR if "rtdetr" in name else YOLO
    if net is None:
        return kind(name)

    class Front(kind):  # type: ignore[misc, valid-type]
        """As the library's own, but that it trains the network it holds."""

        def __init__(self) -> None:
            super().__init__(name)
            # Apart from its modules, of which it knows one; predicting fuses what it holds.
            self.__dict__["whole"] = deepcopy(net)

        def _smart_load(self, key: str) -> Any:
            found = super()._smart_load(key)
            return _keeping(found, self.whole) if key == "trainer" else found

        def train(self, *values: Any, **named: Any) -> Any:
            found = super().train(*values, **named)
            self.__dict__["whole"] = deepcopy(self.model)
            return found

    return Front()


def _keeping(trainer: Any, net: nn.Module) -> Any:
    """A trainer of the library that trains a given network."""

    class Keeping(trainer):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            made: Any = deepcopy(net).float()
            if self.data.get("nc", made.yaml["nc"]) != made.yaml["nc"]:
                raise UserError(
                    f"the pruned network knows {made.yaml['nc']} classes, the data has {self.data['nc']}; "
                    "train the full network on the data first"
                )
            for tensor in made.parameters():
                tensor.requires_grad_(True)
            return made.train()

    return Keeping
