"""Which channels go together where values meet: one by one, or in sums of products."""

from __future__ import annotations

from torch import Tensor, broadcast_shapes

from coprune.groups.labelled import Labelled
from coprune.groups.labels import FACTORS
from coprune.skipped import SkipCode, because

_BATCH = "0123456789"
"""Letters of the axes that an equation does not name."""


def value_by_value(
    values: Labelled, name: str, given: list[Tensor], labels: list[Tensor], made: list[Tensor]
) -> None:
    """Value by value, as the shapes say; what is neither cannot be followed."""
    try:
        shape = tuple(broadcast_shapes(*(t.shape for t in given)))
    except RuntimeError:
        shape = (-1,)
    if all(tensor.shape == shape for tensor in made):
        gated = name.rstrip("_") in FACTORS or name in FACTORS
        values.give(made, values.ties.meet(labels, shape, gated=gated))
        return
    why = because(SkipCode.NOT_FOLLOWED, cause=f"'{name}'")
    values.refuse(given, why)
    values.fix(made, why)


def sum_of_products(values: Labelled, equation: str, labels: list[Tensor], made: Tensor) -> bool:
    """What is summed over goes together.

    Args:
        values: of the pass.
        equation: which axes of the factors are which of the result: ``...ik,...kj->...ij``.
        labels: of the factors. What is given behind those of the equation, such as a mask, is none.
        made: the result.

    Returns:
        Whether the factors have these axes.
    """
    operands, _, out = equation.replace(" ", "").partition("->")
    out = _spelled(out, made)
    factors = [(_spelled(o, part), part) for o, part in zip(operands.split(","), labels, strict=False)]
    if any(len({*letters}) != part.ndim for letters, part in [(out, made), *factors]):
        return False
    parts = []
    for letters, part in factors:
        summed = [axis for axis, letter in enumerate(letters) if letter not in out]
        one = values.ties.along(part, summed)
        order = [letters.index(letter) for letter in out if letter in letters]
        sizes = [one.shape[letters.index(letter)] if letter in letters else 1 for letter in out]
        parts.append(one.permute(*order, *summed).reshape(sizes))
    values.give(made, values.ties.meet(parts, made.shape))
    return True


def _spelled(letters: str, tensor: Tensor) -> str:
    return letters.replace("...", _BATCH[len(_BATCH) + len(letters) - 3 - tensor.ndim :])
