"""What a training does where nobody says it: as suits the model.

Convolutional networks are trained with SGD as the pruning papers do; attention does not learn that way
(Zhang et al. 2020, arXiv 1912.03194), and a pretrained encoder is ruined by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from coprune.bounds import Bounds, Positive
from coprune.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

TRANSFORMER: dict[str, Any] = {
    "optimizer": "adamw", "schedule": "linear", "warmup": 0.1, "weight_decay": 0.01, "clip": 1.0,
    "unit_clip": 0.0, "batch_size": 32,
}  # fmt: skip
"""The usual fine-tuning of BERT (Devlin et al. 2019, arXiv 1810.04805, A.3)."""

TRAINED_LR, FRESH_LR = 2e-5, 3e-4
"""Highest rates of AdamW for a transformer with trained weights, and for one with fresh ones."""

ADAMW_LR = {"trained": 1e-4, "fresh": 1e-3}
"""Of AdamW for other networks."""


def asked(defaults: dict[str, Any], **values: Any) -> Recipe:
    """A recipe that remembers what of it was asked for (``model_fields_set``); the rest suits the model.

    Args:
        defaults: where nothing is asked for and the model does not call for something else.
        values: what was asked for; None: it was not.

    Raises:
        pydantic.ValidationError: a value out of range.
    """
    given = {name: value for name, value in values.items() if value is not None}
    recipe = Recipe(**{**defaults, **given})
    recipe.model_fields_set.intersection_update(given)
    return recipe


def finetuning(**values: Any) -> Recipe:
    """The recipe to train a pruned model by, with what nobody gives set as measured (docs/complementary.md).

    Args:
        values: fields of :class:`Recipe`; None: not given. ``match``: 10 beside soft labels, 0 without.
            ``unit_clip``: 0.2 with ``match`` and ``sgd``. How steep that part of the loss is depends on the
            scale of a network's weights, and the usual rates are too high for some networks without batch
            norm; Adam does not see the scale.

    Raises:
        pydantic.ValidationError: a value out of range.
    """
    plain = asked({"epochs": 0, "lr": 0.02, "distill": 0.9}, **values)
    match = plain.match if "match" in plain.model_fields_set else 10.0 if plain.distill > 0 else 0.0
    clip = 0.2 if match > 0 and plain.optimizer == "sgd" else 0.0
    return asked({**plain.model_dump(), "match": match, "unit_clip": clip}, **values)


class BaseRecipe(Recipe, title="Training"):
    """The recipe to train a base model by.

    Attributes:
        epochs: passes over the training samples; 8 by default.
        lr: highest learning rate; 0.1 by default; of transformers 2e-5, or 3e-4 without trained weights.
        schedule: ``onecycle``, the default, ``cosine``, ``linear``, that of transformers, ``step`` or
            ``constant``.
    """

    epochs: Annotated[int, Bounds(1, 100_000)] = 8
    lr: Positive = 0.1
    schedule: Literal["cosine", "linear", "onecycle", "step", "constant"] = "onecycle"


def suited(recipe: Recipe, model: nn.Module, *, trained: bool) -> Recipe:
    """The recipe with what was not asked for as suits the model; convolutional networks' stays as it is.

    Args:
        recipe: what was asked for, see :func:`asked`.
        model: to be trained.
        trained: whether its weights have been trained before.
    """
    given = recipe.model_fields_set
    fitting: dict[str, Any] = {}
    if is_transformer(model) and not ("optimizer" in given and recipe.optimizer == "sgd"):
        fitting = {**TRANSFORMER, "lr": TRAINED_LR if trained else FRESH_LR}
    elif recipe.optimizer == "adamw":
        fitting = {"lr": ADAMW_LR["trained" if trained else "fresh"]}
    return recipe.model_copy(update={name: v for name, v in fitting.items() if name not in given})


def is_transformer(model: nn.Module) -> bool:
    """Whether a model has attention between tokens: a module of that name with weights that are matrices."""
    from torch import nn

    return any(
        isinstance(module, nn.MultiheadAttention)
        or (
            any(word in type(module).__name__.lower() for word in ("attention", "attn"))
            and any(p.ndim == 2 for p in module.parameters())
        )
        for module in model.modules()
    )
