"""What a user types after ``--model``: a name, or the folder of an earlier run; and ``--weights``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from coprune.errors import UserError, setting
from coprune.models.attention import separate_attention
from coprune.models.hf import pretrained
from coprune.models.hubs import load_published, split_tag
from coprune.models.names import BUNDLED, HF, ModelSource, bundled_names, is_yolo_file
from coprune.models.registry import accepted_arguments, build
from coprune.models.yolo import trained
from coprune.store.checkpoints import classes_in, match_weights, read_checkpoint
from coprune.store.model import load
from coprune.store.state_dict import check_finite, load_weights


def open_model(
    name: str,
    *,
    weights: Path | None = None,
    arguments: Mapping[str, Any],
    offered: Mapping[str, Any],
    task: str | None = None,
    trust: bool = False,
    seed: int | None = None,
) -> nn.Module:
    """The model a user names, with the heads of PyTorch's own attention apart, so that they can be cut.

    Args:
        name: ``coprune:NET``, ``coprune:NET@DATA`` (trained, bundled), ``torchvision:``, ``timm:`` or
            ``pytorchcv:NAME`` (``@pretrained``: with published weights), ``python:module:factory``,
            ``hf:DIR_OR_ID`` (trained), ``ultralytics:FILE.pt`` (trained), ``ultralytics:NAME.yaml`` or a run
            folder.
        weights: a file with a state dict to load into it (:mod:`coprune.store.checkpoints`).
        arguments: the user's own factory arguments.
        offered: arguments that the data suggests, used where the user gave none and the factory
            takes them.
        task: what the model is to do: how an ``hf:`` checkpoint without a head is opened. None: not said.
        trust: run the ``python:`` factory that a run folder names.
        seed: of the head that an ``hf:`` checkpoint lacks; None: torch's generator as it stands.

    Raises:
        UserError: an unknown name (with near matches), weights that do not fit, NaN in weights.
    """
    source: ModelSource | None = None
    folder = BUNDLED / name.removeprefix("coprune:") if name in bundled_names() else Path(name)
    if folder.is_dir() or is_yolo_file(name):
        for argument, value in arguments.items():
            its = f"{name} is a trained model and has its own"
            raise UserError(f"{setting(argument, value)}: {its}; leave it out")
        model = load(folder, trust=trust) if folder.is_dir() else trained(name)
    elif name.startswith(HF):
        chosen = {k: v for k, v in offered.items() if k == "num_classes"} | dict(arguments)
        for argument in sorted(chosen.keys() - {"num_classes"}):
            only = f"only {setting('num_classes')} can be given"
            raise UserError(f"{setting(argument)}: a checkpoint ({name}) has its own; {only}")
        model = pretrained(name, num_classes=chosen.get("num_classes"), task=task, seed=seed)
    else:
        plain, tag = split_tag(name)
        for argument in arguments.keys() - accepted_arguments(plain, arguments).keys():
            given = setting(argument, arguments[argument])
            raise UserError(f"{given}: {plain} takes no {argument}; leave it out")
        source = ModelSource(plain, {**accepted_arguments(plain, offered), **arguments})
        model = build(source)
        if tag is not None:
            load_published(model, plain, tag, arguments)
    if weights is not None:
        found = read_checkpoint(weights)
        if source and "num_classes" in source.arguments and "num_classes" not in arguments:
            # Data may show only some of the classes that weights were trained for.
            count = classes_in(found, model)
            if count is not None and count > source.arguments["num_classes"]:
                model = build(ModelSource(plain, {**source.arguments, "num_classes": count}))
        fit = match_weights(found, model, where=str(weights))
        load_weights(model, fit, where=str(weights))
    check_finite(model.state_dict(), model=model, where=f"model '{name}'")
    return separate_attention(model)
