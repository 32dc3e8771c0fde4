"""How a model is called: one place that knows tensors from named inputs, and outputs from logits.

Image models take one tensor ``[N, …]``. Text models (🤗 transformers) take named tensors, all with the
samples first, and hand back an object with ``logits``. Nothing else in the project calls a model.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from coprune.errors import UserError, is_out_of_memory
from coprune.tracing.checkpointing import unchecked
from coprune.user_code import message_of, place_of

Inputs = Tensor | dict[str, Tensor]
"""What a model reads: one tensor ``[N, …]``, or named ones, each ``[N, …]``."""


def logits_of(model: nn.Module, inputs: Inputs) -> Tensor:
    """One forward pass.

    Args:
        model: takes ``inputs``; hands back a tensor, or an object or a dict with ``logits``.
        inputs: ``[N, …]``, or named.

    Returns:
        Logits ``[N, C]``.

    Raises:
        TypeError: the output is neither.
    """
    with unchecked():
        output: Any = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"{type(model).__name__} returns a {type(output).__name__} without logits; wrap it in a module "
            "that returns logits [N, C]"
        )
    return logits


FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError, ArithmeticError)
"""What a model's forward pass may raise when inputs do not suit it; the classes of builtin errors."""


def model_raised(model: nn.Module, cause: BaseException) -> str:
    """What a model raised, in one line, and the hook of it that this came out of, if any."""
    hooks: dict[Any, str] = {}
    for name, module in model.named_modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            code = getattr(getattr(hook, "func", hook), "__code__", None)
            hooks.setdefault(code, f"the hook '{getattr(hook, '__name__', 'hook')}' on '{name}'")
    codes = [frame.f_code for frame, _ in traceback.walk_tb(cause.__traceback__)]
    for hook in (hooks[code] for code in codes if code in hooks):
        return (
            f"{message_of(cause)}, in {hook} ({place_of(cause)}); it runs on a copy of the model: remove it, "
            "or let it use the module that it is given"
        )
    return message_of(cause)


def check_takes(model: nn.Module, inputs: Inputs) -> Tensor:
    """One forward pass in evaluation mode.

    Args:
        model: left in evaluation mode.
        inputs: ``[N, …]``, or named.

    Returns:
        Logits ``[N, C]``.

    Raises:
        UserError: the model does not take them; with what it raised.
    """
    try:
        with torch.no_grad():
            return logits_of(model.eval(), copied(inputs))  # the first layer may work in place
    except UserError:
        raise
    except Exception as cause:  # a model may be a user's own code
        shapes = " and ".join(str(list(t.shape)) for t in tensors_of(inputs))
        if is_out_of_memory(cause):
            raise UserError(
                f"memory ran out with inputs {shapes}; give smaller batches or samples"
            ) from cause
        why = model_raised(model, cause)
        # The type of these tells nothing more.
        if isinstance(cause, (RuntimeError, ValueError, TypeError)):
            why = why.removeprefix(f"{type(cause).__name__}: ")
        why += _other_type(model, inputs)
        raise UserError(f"the model does not take inputs {shapes}: {why}") from cause


def _other_type(model: nn.Module, inputs: Inputs) -> str:
    """The way out where a model would take the same numbers in its weights' type; else nothing."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if not isinstance(inputs, Tensor) or dtype is None or inputs.dtype == dtype or inputs.is_complex():
        return ""
    try:
        with torch.no_grad():
            logits_of(model, inputs.to(dtype))
    except FAILURES:
        return ""
    given, due = (str(d).removeprefix("torch.") for d in (inputs.dtype, dtype))
    # Bytes are pixels 0…255, which most models take scaled as they were in training.
    scaled = ", scaled as in training (images / 255?)" if inputs.dtype == torch.uint8 else ""
    return f"; it takes {due}, and these are {given}: give x.to(torch.{due}){scaled}"


@contextmanager
def taking(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Within the context these inputs pass the model: an error that it raises by itself is the inputs' fault.

    Args:
        model: what is called inside.
        inputs: ``[N, …]``, or named.

    Raises:
        UserError: see :func:`check_takes`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception:
        check_takes(model, inputs)
        raise


READS = "reads"
"""The note of a stored model with what it reads, see :func:`shapes_of`."""


def shapes_of(inputs: Inputs) -> dict[str, list[int]]:
    """Name of every input (empty for an image) → its shape without the samples; JSON values."""
    named = inputs if isinstance(inputs, dict) else {"": inputs}
    return {name: list(tensor.shape[1:]) for name, tensor in named.items()}


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """All tensors of the inputs."""
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


def samples_in(inputs: Inputs) -> int:
    """Number of samples ``N``."""
    return len(tensors_of(inputs)[0])


def _mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return {n: change(t) for n, t in inputs.items()} if isinstance(inputs, dict) else change(inputs)


def part_of(inputs: Inputs, index: slice | Tensor | list[int]) -> Inputs:
    """Some of the samples."""
    return _mapped(inputs, lambda tensor: tensor[index])


def lengths_of(inputs: Inputs) -> Tensor | None:
    """Tokens of every sample up to its last real one, ``[N]`` int64; None of inputs without a mask."""
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
    if mask is None or mask.ndim != 2:
        return None
    return (mask.bool() * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)


def trimmed(inputs: Inputs) -> Inputs:
    """Without the padding behind the longest of the samples; a token of it costs as much as any other."""
    lengths = lengths_of(inputs)
    if lengths is None or not isinstance(inputs, dict):
        return inputs
    full, width = inputs["attention_mask"].shape[1], max(1, int(lengths.max()))
    return _mapped(inputs, lambda t: t[:, :width] if t.ndim > 1 and t.shape[1] == full else t)


def split(inputs: Inputs, size: int) -> list[Inputs]:
    """In parts of at most ``size`` samples."""
    return [part_of(inputs, slice(at, at + size)) for at in range(0, samples_in(inputs), size)]


def moved(inputs: Inputs, device: str | torch.device) -> Inputs:
    """On a device."""
    return _mapped(inputs, lambda tensor: tensor.to(device))


def copied(inputs: Inputs) -> Inputs:
    """A copy, for a model whose first layer works in place."""
    return _mapped(inputs, torch.clone)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Several batches as one. Named inputs must be as wide as one another.

    Raises:
        ValueError: batches of different shapes.
    """
    try:
        if isinstance(parts[0], dict):
            return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}  # type: ignore[index]
        return torch.cat(list(parts))  # type: ignore[arg-type]
    except RuntimeError as cause:
        raise ValueError(f"batches of different shapes cannot be joined: {cause}") from cause
