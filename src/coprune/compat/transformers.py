"""🤗 transformers' and its hub's internals: what is relied on that their documentation does not promise.

Families of attention are a table of their own (:mod:`coprune.groups.families`). The tests of this module fail
on a version outside of :data:`VERSIONS`, and where a name that is used here is gone.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from coprune.compat import quiet
from coprune.errors import UserError, first_line, shown
from coprune.lazy import required
from coprune.tracing.forward import FAILURES

VERSIONS = ((5, 20), (6, 0))
"""The first version that is known, and the first that is not."""

CONFIG, GENERATION = "config.json", "generation_config.json"

ATTENTIONS = ("eager", "sdpa")
"""Ways to compute attention that every model has."""

WIDTHS = (
    "intermediate_size",
    "ffn_dim",
    "d_ff",
    "n_inner",
    "hidden_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
)
"""Keys of configurations that say how many neurons all feed-forward blocks have."""

HEAD_COUNTS = (
    *("num_attention_heads", "num_heads", "n_head", "n_heads", "num_key_value_heads"),
    *("encoder_attention_heads", "decoder_attention_heads"),
)
"""Keys that say how many heads all attention modules have."""

HEAD_SIZES = ("head_dim", "d_kv")
"""Keys that say how many channels a head has; without one it is the width over the heads."""


SIZES = (*WIDTHS, *HEAD_COUNTS, *HEAD_SIZES)
"""Keys that a pruned model's configuration may have changed."""


def library() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    return required("transformers", "hf: models need 🤗 transformers", extra="text")


quiet_hub = partial(quiet, "huggingface_hub")
"""Without the hub's log of its attempts."""


@contextmanager
def library_errors(refused: str, *, then: str = "") -> Iterator[None]:
    """Within the context the library shows no bars and tables, and what it raises becomes one line.

    Args:
        refused: what the message begins with; the cause follows in brackets.
        then: its end, with the way out.

    Raises:
        UserError: it refuses what it is asked.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        with quiet_hub():
            yield
    except UserError:
        raise
    except (*FAILURES, OSError, ImportError, SafetensorError, StrictDataclassError) as cause:
        why = first_line(cause)
        why = shown(str(cause), most=300) if why.endswith(":") else why
        raise UserError(f"{refused} ({why}){then}") from cause
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


def is_transformers_model(model: nn.Module) -> bool:
    """Whether a model's class is one of the transformers package; does not import the package."""
    ours = type(model).__module__.startswith("transformers.models.")
    return ours and callable(getattr(model, "save_pretrained", None)) and hasattr(model, "config")


def inner_models(model: nn.Module) -> dict[str, nn.Module]:
    """The transformers models in a model, by name, and none that are parts of those."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if is_transformers_model(module) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def model_class(name: object) -> Any:
    """The package's own class of models of that name; None where it has none."""
    kind: Any = getattr(library(), name, None) if isinstance(name, str) and name.isidentifier() else None
    known = inspect.isclass(kind) and issubclass(kind, library().PreTrainedModel)
    return kind if known and kind.config_class is not None else None


def parts(config: Any) -> dict[str, Any]:
    """A configuration under ``""`` and those inside it, such as ``text_config``, under their names."""
    inside = {key: getattr(config, key, None) for key in getattr(config, "sub_configs", ())}
    return {"": config, **{key: part for key, part in inside.items() if part is not None}}


def local_only(config: Any) -> Any:
    """A configuration that fetches neither weights nor kernels; changed in place."""
    for part in parts(config).values():
        if getattr(part, "use_pretrained_backbone", False):
            part.use_pretrained_backbone = False
        for attribute in ("_attn_implementation", "_experts_implementation"):
            if "/" in str(getattr(part, attribute, None)):
                setattr(part, attribute, None)
    return config


def skeleton(kind: Any, config: Any) -> nn.Module | None:
    """A model of a configuration without memory, as its file would build it; None where it refuses."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        read = type(config).from_dict(config.to_dict())
        for key, part in parts(config).items():
            parts(read)[key]._attn_implementation = part._attn_implementation
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return kind(read)
    except (*FAILURES, StrictDataclassError):
        return None


def attention_of(config: Any) -> dict[str, str]:
    """How attention is computed, part by part, where it is one of :data:`ATTENTIONS`."""
    found = {key: part._attn_implementation for key, part in parts(config).items()}
    return {key: value for key, value in found.items() if value in ATTENTIONS}


def set_attention(config: Any, attention: Mapping[str, str]) -> None:
    """Set what :func:`attention_of` found."""
    for key, part in parts(config).items():
        if attention.get(key) in ATTENTIONS:
            part._attn_implementation = attention[key]


def config_files(model: Any, config: Any) -> dict[str, str]:
    """File → content, as ``save_pretrained`` writes what describes a model of a configuration."""
    config = copy.deepcopy(config)
    config.architectures, config.dtype = [type(model).__name__], model.dtype
    files = {CONFIG: config.to_json_string(use_diff=True)}
    if model.can_generate() and model.generation_config is not None:
        files[GENERATION] = model.generation_config.to_json_string(use_diff=True)
    return files


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers that are not in the state dict, such as rotary frequencies."""
    saved = model.state_dict().keys()
    return {n: b for n, b in model.named_buffers() if n not in saved and b.is_floating_point()}


def cached_folder(name: str) -> str:
    """The folder of the hub's cache that holds a model's files; its name where it is not cached."""
    from transformers.utils import cached_file

    with suppress(*FAILURES, OSError):
        if found := cached_file(name, CONFIG, local_files_only=True):
            return str(Path(found).parent)
    return name


def pretrained_weights(
    kind: Any, place: str, config: Any
) -> tuple[nn.Module, set[str], list[tuple[str, Any, Any]]]:
    """A model with the weights of a checkpoint, float32.

    Returns:
        The model; names of weights that the checkpoint lacks; those of another shape: name, its shape,
        that of the model.
    """
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True, "trust_remote_code": False}
    model, report = kind.from_pretrained(place, config=config, dtype=torch.float32, **told)
    return model, set(report["missing_keys"]), list(report["mismatched_keys"])
