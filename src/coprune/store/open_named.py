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
from coprune.models.names import BUNDLED, HF, ModelSource, bundled_names, unknown
from coprune.models.registry import accepted_arguments, build
from coprune.store.checkpoints import fitting, read_checkpoint
from coprune.store.model import load
from coprune.store.state_dict import check_finite, load_weights


def open_model(
    name: str,
    *,
    weights: Path | None = None,
    arguments: Mapping[str, Any],
    offered: Mapping[str, Any],
    trust: bool = False,
    seed: int | None = None,
) -> nn.Module:
    """The model a user names, with the heads of PyTorch's own attention apart, so that they can be cut.

    Args:
        name: ``coprune:NET``, ``coprune:NET@DATA`` (trained, bundled), ``torchvision:``, ``timm:`` or
            ``pytorchcv:NAME`` (``@pretrained``: with published weights), ``python:module:factory``,
            ``hf:DIR_OR_ID`` (trained) or a run folder.
        weights: a file with a state dict to load into it (:mod:`coprune.store.checkpoints`).
        arguments: the user's own factory arguments.
        offered: arguments that the data suggests, used where the user gave none and the factory
            takes them.
        trust: run the ``python:`` factory that a run folder names.
        seed: of the head that an ``hf:`` checkpoint lacks; None: torch's generator as it stands.

    Raises:
        UserError: an unknown name (with near matches), weights that do not fit, NaN in weights.
    """
    trained = name in bundled_names() or Path(name).is_dir()
    for argument in arguments if trained else ():
        raise UserError(
            f"{setting(argument, arguments[argument])}: "
            f"{name} is a trained model and has its own; leave it out"
        )
    if name in bundled_names():
        model = load(BUNDLED / name.removeprefix("coprune:"))
    elif Path(name).is_dir():
        model = load(name, trust=trust)
    elif name.startswith(HF):
        chosen = {**{k: offered[k] for k in ("num_classes",) if k in offered}, **arguments}
        if chosen.keys() - {"num_classes"}:
            wrong = setting(sorted(chosen.keys() - {"num_classes"})[0])
            raise UserError(
                f"{wrong}: a checkpoint ({name}) has its own; only {setting('num_classes')} can be given"
            )
        model = pretrained(name, num_classes=chosen.get("num_classes"), seed=seed)
    elif "/" in name and ":" not in name:
        raise unknown(name)
    else:
        plain, tag = split_tag(name)
        for argument in arguments.keys() - accepted_arguments(plain, arguments).keys():
            raise UserError(
                f"{setting(argument, arguments[argument])}: {plain} takes no {argument}; leave it out"
            )
        chosen = {**accepted_arguments(plain, offered), **arguments}
        model = build(ModelSource(plain, chosen))
        if tag is not None:
            load_published(model, plain, tag)
    if weights is not None:
        fit = fitting(read_checkpoint(weights), model, where=str(weights))
        load_weights(model, fit, where=str(weights))
    check_finite(model.state_dict(), model=model, where=f"model '{name}'")
    return separate_attention(model)
