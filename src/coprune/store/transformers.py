"""A model of 🤗 transformers on disk: what its own format adds to a run folder.

``config.json`` (and ``generation_config.json``) as ``save_pretrained`` writes them, the tokenizer's or
image processor's files beside them. Loading takes the class that ``config.json`` names from the
transformers package itself, never code from the folder or a hub.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from coprune.compat import transformers as compat
from coprune.compat.transformers import CONFIG, GENERATION
from coprune.errors import UserError, shown
from coprune.files import read_json, write_bytes, write_text
from coprune.models.hf import TOKENIZER_FILES, read_config
from coprune.store.config_sizes import FULL, changed, fitted
from coprune.store.state_dict import type_of

INPUT_FILES = (
    *TOKENIZER_FILES,
    *("special_tokens_map.json", "added_tokens.json", "merges.txt", "bpe.codes", "chat_template.jinja"),
    *("preprocessor_config.json", "processor_config.json"),
)
"""Text that turns sentences or images into inputs; no code is among them."""


INNER = "transformers"
"""The folder with the configurations of models inside another one."""


class Architecture(BaseModel):
    """What ``config.json`` does not say about a model of 🤗 transformers.

    Attributes:
        attention: how attention is computed: ``""`` is the model's own, other keys are parts of it
            such as ``text_config``. Not the same bits for ``eager`` and ``sdpa``.
        buffers: name → dtype of the floating-point buffers that are no weights (rotary frequencies).
        full: place (:mod:`coprune.store.config_sizes`) → its value before pruning, where ``config.json`` has
            that after it.
        without: modules that ``config.json`` asks for and that the model was made without, such as a pooler.
    """

    attention: dict[str, str] = {}
    buffers: dict[str, str] = {}
    full: dict[str, int | None] = {}
    without: tuple[str, ...] = ()


def save_architecture(folder: Path, model: nn.Module) -> Architecture | None:
    """Write configuration and tokenizer files of a transformers model; None for any other model.

    Of models inside another one, such as the backbone of a user's own, the configurations go into folders
    of their names under ``transformers/``: the folder itself is none of theirs.

    The tokenizer is looked for in the folder that ``model._coprune_tokenizer`` names, or in the one that
    the model came from.
    """
    if not compat.is_transformers_model(model):
        for name, part in compat.inner_models(model).items():
            _save_config(folder / INNER / name, part)
            _save_tokenizer(folder, part)
        return None
    full = _save_config(folder, model)
    _save_tokenizer(folder, model)
    source: Any = model
    described = Architecture(attention=compat.attention_of(source.config), full=full)
    buffers = {name: type_of(buffer) for name, buffer in compat.unsaved_buffers(model).items()}
    return described.model_copy(update={"without": _left_out(folder, described, model), "buffers": buffers})


def _left_out(folder: Path, described: Architecture, model: Any) -> tuple[str, ...]:
    """Modules that a model of the folder's configuration has, and this one has None in their places."""
    if compat.model_class(type(model).__name__) is None:
        return ()
    asked = compat.skeleton(type(model), model.config)
    if asked is None:  # some look at values while they are built
        asked = architecture_builder(folder, described)()
    places = ((name, name.rpartition(".")) for name, _ in asked.named_modules() if name)
    mine = dict(model.named_modules())
    return tuple(
        name
        for name, (around, _, last) in places
        if around in mine and getattr(mine[around], last, asked) is None
    )


def _save_config(folder: Path, model: Any) -> dict[str, Any]:
    """Write the configuration that says a model's sizes, as far as one can; what it says of the full ones."""
    fit = fitted(model)
    for name, text in compat.config_files(model, changed(model.config, fit.changes)).items():
        write_text(folder / name, text)
    return fit.before


def _save_tokenizer(folder: Path, model: Any) -> None:
    origin = getattr(model, "_coprune_tokenizer", None) or getattr(model.config, "_name_or_path", "")
    place = Path(compat.cached_folder(origin) if origin and not Path(origin).is_dir() else origin or ".")
    if origin and place.is_dir() and place.resolve() != folder.resolve():
        for name in INPUT_FILES:
            if (place / name).is_file():
                write_bytes(folder / name, (place / name).read_bytes())


def architecture_builder(
    folder: Path, architecture: Architecture, *, full: bool = False
) -> Callable[[], nn.Module]:
    """What makes a model with fresh weights from the folder's ``config.json``.

    Args:
        folder, architecture: what was saved.
        full: with the sizes from before pruning, where the file says those after it.

    Returns:
        A function that imports nothing, so that it may be called inside a device mode.

    Raises:
        UserError: transformers is not installed, the file is missing or damaged, or it names a class
            that transformers does not have.
    """
    described, version = read_config(folder), compat.library().__version__
    names = described.get("architectures")
    name = names[0] if isinstance(names, list) and names else ""
    kind = compat.model_class(name)
    if kind is None:
        raise UserError(
            f"{folder / CONFIG}: names the class '{shown(name)}', which transformers {version} does not "
            "have; install the version that the model was made with"
        )
    return lambda: _built(folder, architecture, kind, described, full=full)


def _built(
    folder: Path, architecture: Architecture, kind: Any, described: dict[str, Any], *, full: bool
) -> nn.Module:
    name = kind.__name__
    with compat.library_errors(f"{folder / CONFIG}: {name} refuses it", then="; restore the file"):
        config = compat.local_only(kind.config_class.from_dict(described))
        compat.set_attention(config, architecture.attention)
        if full:
            before = {p: v for p, v in architecture.full.items() if p.rpartition(".")[2] in compat.SIZES}
            config = changed(config, before)
        with torch.random.fork_rng(devices=[]):
            model: Any = kind(config)
    if not full:
        vars(model)[FULL] = architecture.full
    if (folder / GENERATION).is_file() and model.can_generate():
        settings = read_json(folder / GENERATION, what="generation settings")
        with compat.library_errors(f"{folder / GENERATION}: not generation settings"):
            model.generation_config = compat.library().GenerationConfig.from_dict(settings)
    if any((folder / file).is_file() for file in INPUT_FILES):
        model._coprune_tokenizer = str(folder)
    for module in architecture.without:
        around, _, last = module.rpartition(".")
        if module not in dict(model.named_modules()):
            raise UserError(f"{folder}: was saved without '{shown(module)}', which this {name} does not have")
        setattr(model.get_submodule(around), last, None)
    for buffer, dtype in architecture.buffers.items():
        place, _, key = buffer.rpartition(".")
        owner, wanted = dict(model.named_modules()).get(place), getattr(torch, dtype, None)
        old = None if owner is None else owner._buffers.get(key)
        if owner is None or old is None or not isinstance(wanted, torch.dtype):
            raise UserError(
                f"{folder}: buffer '{shown(buffer)}' of type '{shown(dtype)}' is not in this {name}"
            )
        owner._buffers[key] = old.to(wanted)
    return model.eval()


def tie_weights(model: nn.Module) -> None:
    """Tie what the model's configuration ties, e.g. embedding and language-model head."""
    if compat.is_transformers_model(model):
        source: Any = model
        source.tie_weights()
