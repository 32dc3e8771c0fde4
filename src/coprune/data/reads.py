"""What of a batch a model reads, and what is left as targets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

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
        own: the user's own reading, a batch → ``(inputs, targets)``: a tuple of inputs stands for as many
            arguments, a list for samples of their own sizes.
    """

    positional: int | None = None
    most: int | None = None
    names: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    labelled: bool = False
    own: Callable[[Any], Any] | None = None

    @staticmethod
    def of(model: nn.Module, *, labelled: bool = False, own: Callable[[Any], Any] | None = None) -> Reads:
        """As the signature of a model's forward pass says."""
        unknown = Reads(labelled=labelled, own=own)
        inner = getattr(model, "_orig_mod", model)  # of torch.compile
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = inner.module
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


CLASSES = Reads(labelled=True)
"""Of a classifier, whatever it takes."""
