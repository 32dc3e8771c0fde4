"""What of a batch a model reads, and what is left as targets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from coprune.data.token_targets import IGNORED

_TARGETS = {"labels", "label", "targets", "target", "y", "mask", "masks", "mask_labels", "decoder_labels"}
"""Names of targets, also where a forward pass takes them for a loss of its own."""
_TARGETS_OF_TEXTS = {"start_positions", "end_positions", "next_sentence_label"}


def is_target(name: str) -> bool:
    """Whether a name says that a tensor is a target."""
    return name in _TARGETS | _TARGETS_OF_TEXTS or name.startswith("labels_")


@dataclass(frozen=True)
class Reads:
    """How a batch of a user's loader is read.

    Attributes:
        positional: how many inputs the model's forward pass needs; None: it does not say.
        most: how many it takes by place; None: any number.
        names: of the inputs that it takes; empty: any.
        required: those of them that it needs.
        labelled: targets are class numbers ``[B]``, and nothing else will do.
        decoder: what an encoder-decoder model's decoder reads, of labels ``[B, T]``; None: there is none.
        own: the user's own reading, a batch → ``(inputs, targets)``: a tuple of inputs stands for as many
            arguments, a list for samples of their own sizes.
    """

    positional: int | None = None
    most: int | None = None
    names: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    labelled: bool = False
    decoder: Callable[[Tensor], Tensor] | None = None
    own: Callable[[Any], Any] | None = None

    @staticmethod
    def of(model: nn.Module, *, labelled: bool = False, own: Callable[[Any], Any] | None = None) -> Reads:
        """As the signature of a model's forward pass says."""
        inner = getattr(model, "_orig_mod", model)  # of torch.compile
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = inner.module
        unknown = Reads(labelled=labelled, own=own, decoder=_decoder(inner))
        try:
            taken = inspect.signature(inner.forward).parameters.values()
        except (TypeError, ValueError):  # of compiled code
            return unknown
        named = [p for p in taken if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        needed = [p for p in named if p.default is p.empty]
        inputs = [p for p in named if p in needed or p.name == "mask" or not is_target(p.name)]
        by_place = [p for p in inputs if p.kind is not p.KEYWORD_ONLY]
        if not by_place:
            return unknown
        return replace(
            unknown,
            positional=max(1, sum(p in needed for p in by_place)),
            most=None if any(p.kind is p.VAR_POSITIONAL for p in taken) else len(by_place),
            names=frozenset(p.name for p in inputs),
            required=frozenset(p.name for p in needed),
        )


def _decoder(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """How a 🤗 model that makes a text of something shifts labels into what its decoder reads."""
    config = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False) or not getattr(model, "can_generate", bool)():
        return None
    own = getattr(model, "prepare_decoder_input_ids_from_labels", None)

    def shifted(labels: Tensor) -> Tensor:
        if own is not None:
            return own(labels)
        ids = labels.roll(1, 1)
        ids[:, 0] = config.decoder_start_token_id  # type: ignore[union-attr]
        return ids.masked_fill(ids == IGNORED, config.pad_token_id)  # type: ignore[union-attr]

    return shifted


CLASSES = Reads(labelled=True)
"""Of a classifier, whatever it takes."""
