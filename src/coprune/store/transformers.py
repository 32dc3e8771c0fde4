"""A model of 🤗 transformers on disk: what its own format adds to a run folder.

``config.json`` (and ``generation_config.json``) as ``save_pretrained`` writes them, the tokenizer's or
image processor's files beside them. Loading takes the class that ``config.json`` names from the
transformers package itself, never code from the folder or a hub.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from coprune.errors import UserError, shown
from coprune.files import read_json, write_bytes
from coprune.groups.attention import attention_family
from coprune.models.hf import CONFIG, TOKENIZER_FILES, read_config, tamed
from coprune.tracing.forward import FAILURES

GENERATION = "generation_config.json"

INPUT_FILES = (
    *TOKENIZER_FILES,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "bpe.codes",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Text that turns sentences or images into inputs; no code is among them."""

_ATTENTIONS = ("eager", "sdpa")

_REFUSALS = (*FAILURES, OSError, ImportError)


class Architecture(BaseModel):
    """What ``config.json`` does not say about a model of 🤗 transformers.

    Attributes:
        attention: how attention is computed: ``""`` is the model's own, other keys are parts of it
            such as ``text_config``. Not the same bits for ``eager`` and ``sdpa``.
        buffers: name → dtype of the floating-point buffers that are no weights (rotary frequencies).
    """

    attention: dict[str, str] = {}
    buffers: dict[str, str] = {}


def attention_counts(model: nn.Module) -> dict[str, dict[str, int]]:
    """Attention module → its attributes that count heads, as they are after surgery."""
    found = {}
    for name, module in model.named_modules():
        family = attention_family(name, module)
        if family is not None and family.scaled:
            found[name] = {attribute: int(getattr(module, attribute)) for attribute in family.scaled}
    return found


def is_transformers_model(model: nn.Module) -> bool:
    """Whether a model's class is one of the transformers package; does not import the package."""
    kind = type(model)
    return (
        kind.__module__.startswith("transformers.models.")
        and callable(getattr(model, "save_pretrained", None))
        and hasattr(model, "config")
    )


def save_architecture(folder: Path, model: nn.Module) -> Architecture | None:
    """Write configuration and tokenizer files of a transformers model; None for any other model.

    The tokenizer is looked for in the folder that ``model._coprune_tokenizer`` names, or in the one that
    the model came from.
    """
    if not is_transformers_model(model):
        return None
    source: Any = model
    config = copy.deepcopy(source.config)
    config.architectures = [type(model).__name__]
    config.dtype = source.dtype
    write_bytes(folder / CONFIG, config.to_json_string(use_diff=True).encode())
    if source.can_generate() and source.generation_config is not None:
        write_bytes(folder / GENERATION, source.generation_config.to_json_string(use_diff=True).encode())
    origin = getattr(model, "_coprune_tokenizer", None) or getattr(source.config, "_name_or_path", "")
    if origin and Path(origin).is_dir() and Path(origin).resolve() != folder.resolve():
        for name in INPUT_FILES:
            if (Path(origin) / name).is_file():
                write_bytes(folder / name, (Path(origin) / name).read_bytes())
    parts = {"": source.config} | {key: getattr(source.config, key, None) for key in config.sub_configs}
    return Architecture(
        attention={
            key: part._attn_implementation
            for key, part in parts.items()
            if part is not None and part._attn_implementation in _ATTENTIONS
        },
        buffers={name: str(buffer.dtype).removeprefix("torch.") for name, buffer in _unsaved(model).items()},
    )


def build_architecture(folder: Path, architecture: Architecture) -> nn.Module:
    """A full-size model with fresh weights from the folder's ``config.json``.

    Raises:
        UserError: transformers is not installed, the file is missing or damaged, or it names a class
            that transformers does not have.
    """
    try:
        import transformers
        from huggingface_hub.errors import StrictDataclassError
    except ImportError as cause:
        raise UserError(f"{folder}: holds a model of 🤗 transformers; pip install 'coprune[text]'") from cause
    described = read_config(folder)
    names = described.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    made: Any = kind if inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel) else None
    if made is None or made.config_class is None:
        raise UserError(
            f"{folder / CONFIG}: names the class '{shown(name)}', which transformers "
            f"{transformers.__version__} does not have; install the version that the model was made with"
        )
    try:
        config = tamed(made.config_class.from_dict(described))
        _set_attention(config, architecture.attention)
        with torch.random.fork_rng(devices=[]):
            model: Any = made(config)
    except (*_REFUSALS, StrictDataclassError) as cause:
        why = shown(str(cause), most=300)
        raise UserError(f"{folder / CONFIG}: {name} refuses it: {why}; restore the file") from cause
    if (folder / GENERATION).is_file() and model.can_generate():
        settings = read_json(folder / GENERATION, what="generation settings")
        try:
            model.generation_config = transformers.GenerationConfig.from_dict(settings)
        except _REFUSALS as cause:
            why = shown(str(cause), most=300)
            raise UserError(f"{folder / GENERATION}: not generation settings ({why})") from cause
    if any((folder / file).is_file() for file in INPUT_FILES):
        model._coprune_tokenizer = str(folder)
    for buffer, dtype in architecture.buffers.items():
        place, _, key = buffer.rpartition(".")
        try:
            module = model.get_submodule(place)
            old, wanted = module._buffers[key], getattr(torch, dtype)
        except (AttributeError, KeyError) as cause:
            raise UserError(f"{folder}: buffer '{buffer}' is not in this {name}") from cause
        if old is None or not isinstance(wanted, torch.dtype):
            raise UserError(f"{folder}: buffer '{buffer}' of type '{dtype}' is not in this {name}")
        module._buffers[key] = old.to(wanted)
    return model.eval()


def tie_weights(model: nn.Module) -> None:
    """Tie what the model's configuration ties, e.g. embedding and language-model head."""
    if is_transformers_model(model):
        source: Any = model
        source.tie_weights()


def _set_attention(config: Any, attention: Mapping[str, str]) -> None:
    """Set how attention is computed, for the model and for its parts."""
    for key, value in attention.items():
        part = getattr(config, key, None) if key else config
        if part is not None and value in _ATTENTIONS:
            part._attn_implementation = value


def _unsaved(model: nn.Module) -> dict[str, torch.Tensor]:
    """Floating-point buffers that are not in the state dict."""
    saved = model.state_dict().keys()
    return {n: b for n, b in model.named_buffers() if n not in saved and b.is_floating_point()}
