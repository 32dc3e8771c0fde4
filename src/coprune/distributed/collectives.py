"""How the processes of a run put their shares together. With one process everything is the identity.

All of it goes over the CPU's group, in the order of the ranks. Floating-point sums are therefore the same
bits in every process, and the same in every run with as many processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from coprune.distributed.world import is_first, world
from coprune.errors import UserError

T = TypeVar("T")

Parts = Mapping[str, Tensor]
"""Tensors that describe one thing together, such as count, mean and M2."""

_PIECE = 1 << 24
"""Values exchanged at a time: 128 MB of float64 from every process, however large the tensor."""


def gathered(value: T) -> list[T]:
    """A small value of every process, in the order of the ranks."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, value)
    return found


def gathered_tensors(value: Tensor) -> list[Tensor]:
    """A tensor of every process, in the order of the ranks; all of one shape and type.

    Args:
        value: on any device.

    Returns:
        As many tensors as there are processes, on the device of ``value``.
    """
    if world() == 1:
        return [value]
    sent = value.detach().cpu().contiguous()
    found = [torch.empty_like(sent) for _ in range(world())]
    if sent.numel():
        dist.all_gather(found, sent)
    return [tensor.to(value.device) for tensor in found]


def joined_rows(value: Tensor) -> Tensor:
    """The rows of every process, ``[M, …]``, as one tensor in the order of the ranks.

    Args:
        value: ``[m, …]``; ``m`` may differ between processes.
    """
    lengths = gathered(len(value))
    longest = max(lengths)
    filled = value.new_zeros((longest, *value.shape[1:]))
    filled[: len(value)] = value
    parts = gathered_tensors(filled)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def summed(value: Tensor) -> Tensor:
    """Sum over the processes, added in the order of the ranks.

    Args:
        value: of the same shape everywhere; float64 or whole numbers, if nothing is to be lost.
    """
    if world() == 1:
        return value
    flat = value.detach().flatten()
    pieces = [reduce(torch.add, gathered_tensors(piece)) for piece in flat.split(_PIECE)]
    return torch.cat(pieces).view(value.shape)


def merged(
    found: Mapping[str, Parts], rule: Callable[[Parts, Parts], Mapping[str, Tensor]]
) -> dict[str, Mapping[str, Tensor]]:
    """What every process gathered of each of several things, merged in the order of the ranks.

    Args:
        found: name → parts; a process that saw nothing of a thing has no entry, or no parts.
        rule: merges two sets of parts.

    Returns:
        Name → parts, the same in every process.
    """
    if world() == 1:
        return dict(found)
    shapes = gathered(
        {name: {k: (tuple(t.shape), t.dtype) for k, t in parts.items()} for name, parts in found.items()}
    )
    whole: dict[str, Mapping[str, Tensor]] = {}
    for name in dict.fromkeys(name for there in shapes for name in there):
        seen = [there.get(name, {}) for there in shapes]
        form = next((parts for parts in seen if parts), {})
        mine = found.get(name) or {
            key: torch.zeros(shape, dtype=dtype) for key, (shape, dtype) in form.items()
        }
        exchanged = {key: gathered_tensors(mine[key]) for key in form}
        sets = [{key: exchanged[key][r] for key in form} for r, parts in enumerate(seen) if parts]
        whole[name] = reduce(rule, sets) if sets else {}
    return whole


def on_first(action: Callable[[], T]) -> T:
    """Do something in the first process only, such as writing files; every process gets the result.

    Raises:
        UserError: in every process, what the action raised in the first.
    """
    if world() == 1:
        return action()
    outcome: tuple[Any, UserError | None] = None, None
    if is_first():
        try:
            outcome = action(), None
        except UserError as cause:
            outcome = None, cause
    found, mistake = gathered(outcome)[0]
    if mistake is not None:
        raise mistake
    return found


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The first process does what is inside before the others: it may fetch or unpack files for all."""
    if not is_first():
        gathered(None)
    try:
        yield
    finally:
        if is_first():
            gathered(None)


def check_same(held: T, digest: Callable[[T], str], *, what: str) -> None:
    """Refuse to go on when the processes do not hold the same.

    Args:
        held: by this process.
        digest: a text that tells it from others; not asked for when there is one process.
        what: it is, in words.

    Raises:
        UserError: in every process, naming one that differs.
    """
    if world() == 1:
        return
    found = gathered(digest(held))
    other = next((r for r, theirs in enumerate(found) if theirs != found[0]), None)
    if other is not None:
        raise UserError(
            f"process {other} has another {what} than process 0; "
            "start all on machines alike, with the same files, versions and --threads"
        )
