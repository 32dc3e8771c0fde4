"""How a model is called: one place that knows what a model reads, whatever it is, and what it hands back.

Inputs are a tree of tensors with the samples first: one tensor ``[N, …]``; named ones, as texts are; a tuple,
an argument each; or a list of samples of their own sizes, one argument (torchvision's detectors). Nothing
else in the project calls a model.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from coprune.errors import UserError, is_out_of_memory
from coprune.tracing.checkpointing import unchecked
from coprune.tracing.detectors import with_heads
from coprune.user_code import message_of, place_of

T = TypeVar("T")

Inputs = Any
"""What a model reads: a tensor ``[N, …]``, a dict of named ones, a tuple of arguments, each a tree of them
with ``N`` samples first; or a list of ``N`` samples."""


def run(model: nn.Module, inputs: Inputs) -> Any:
    """One forward pass, and what it hands back as it is; torchvision's detectors' with what their heads say.

    Args:
        model: takes ``inputs``: a dict by name, a tuple argument by argument, all else as one argument.
        inputs: see the module.
    """
    with unchecked(), _same_draws(model), with_heads(model) as beside:
        if isinstance(inputs, dict):
            return beside(model(**inputs))
        return beside(model(*inputs) if isinstance(inputs, tuple) else model(inputs))


@contextmanager
def _same_draws(model: nn.Module) -> Iterator[None]:
    """Within the context a model that draws numbers draws the same ones in every pass, but in training.

    A variational autoencoder and one that masks its inputs do so in evaluation mode too. Two networks can be
    compared by the same draws only.
    """
    if model.training:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[d] for d in devices)):
            generator.manual_seed(0)
        yield


def logits_of(model: nn.Module, inputs: Inputs) -> Tensor:
    """One forward pass of a classifier.

    Args:
        model: takes ``inputs``; hands back a tensor, or an object or a dict with ``logits``.
        inputs: see the module.

    Returns:
        Logits ``[N, C]``.

    Raises:
        TypeError: the output is neither.
    """
    output: Any = run(model, inputs)
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


def check_takes(model: nn.Module, inputs: Inputs, read: Callable[[Any], T] = lambda output: output) -> T:
    """One forward pass in evaluation mode.

    Args:
        model: left in evaluation mode.
        inputs: see the module.
        read: takes what counts out of the output, see :mod:`coprune.task`.

    Returns:
        What ``read`` finds; the output as it is where nothing reads it.

    Raises:
        UserError: the model does not take them; with what it raised.
    """
    try:
        with torch.no_grad():
            return read(run(model.eval(), copied(inputs)))  # the first layer may work in place
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
        why += _other_type(model, inputs) + _nothing_to_decode(model, inputs)
        raise UserError(f"the model does not take inputs {shapes}: {why}") from cause


def _nothing_to_decode(model: nn.Module, inputs: Inputs) -> str:
    """The way out where a 🤗 encoder-decoder was given nothing that its decoder reads; else nothing."""
    decodes = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if not decodes or not isinstance(inputs, dict) or any(name.startswith("decoder_") for name in inputs):
        return ""
    return "; its decoder reads 'decoder_input_ids', which are made of 'labels' where a batch has these"


def _other_type(model: nn.Module, inputs: Inputs) -> str:
    """The way out where a model would take the same numbers in its weights' type; else nothing."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if not isinstance(inputs, Tensor) or dtype is None or inputs.dtype == dtype or inputs.is_complex():
        return ""
    try:
        with torch.no_grad():
            run(model, inputs.to(dtype))
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
        inputs: see the module.

    Raises:
        UserError: see :func:`check_takes`.
    """
    try:
        yield
    except UserError:
        raise
    # Of any class, as the model may be a user's own code. Nothing is swallowed: it is raised again.
    except Exception:
        check_takes(model, inputs)
        raise


READS, WHOLE = "reads", "reads_whole_numbers"
"""Notes of a stored model: what it reads, see :func:`shapes_of`; and of whole numbers the highest seen."""


def notes_of(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """What a stored model notes of its inputs ``[N, …]``."""
    tensors = dict(zip(shapes_of(inputs), tensors_of(inputs), strict=True))
    numbers = {n: t for n, t in tensors.items() if not (t.is_floating_point() or t.is_complex())}
    whole = {n: max(0, int(t.max())) if t.numel() else 0 for n, t in numbers.items()}
    return {READS: shapes_of(inputs), **({WHOLE: whole} if whole else {})}


def shapes_of(inputs: Inputs) -> dict[str, list[int]]:
    """Name of every input (empty where there is one) → its shape without the samples; JSON values."""
    tensors = tensors_of(inputs)
    names = list(inputs) if isinstance(inputs, dict) else [""] if len(tensors) == 1 else range(len(tensors))
    return {str(name): list(tensor.shape[1:]) for name, tensor in zip(names, tensors, strict=False)}


def tensors_of(inputs: Any) -> list[Tensor]:
    """All tensors of a tree, in its order; of an object, such as a dataclass, those of its attributes."""
    found: list[Tensor] = []
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type | nn.Module):
            found += [value for value in tree_leaves(dict(vars(leaf))) if isinstance(value, Tensor)]
    return found


Counts = Callable[[Any], Sequence[Tensor]]
"""What counts of what a model hands back."""


def counted(output: Any) -> list[Tensor]:
    """What counts where nobody says it: ``logits`` where there are some, else all."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return [logits] if isinstance(logits, Tensor) else tensors_of(output)


def samples_in(inputs: Inputs) -> int:
    """Number of samples ``N``."""
    if isinstance(inputs, list):
        return len(inputs)
    return next((len(tensor) for tensor in tensors_of(inputs) if tensor.ndim), 0)


_SMALL = 3 * 128 * 128  # values of a small image


def are_photographs(inputs: Inputs) -> bool:
    """Whether samples are images of more than 128 × 128 pixels, each of which costs as much as many small."""
    return isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs[0].numel() > _SMALL


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """With every tensor changed; all else stays."""
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, inputs)


def part_of(inputs: Inputs, index: slice | Tensor | list[int]) -> Inputs:
    """Some of the samples. What has no samples, a number or a tensor without axes, stays."""
    if isinstance(inputs, list):
        if isinstance(index, slice):
            return inputs[index]
        return [inputs[i] for i in (index.tolist() if isinstance(index, Tensor) else index)]
    return mapped(inputs, lambda tensor: tensor[index] if tensor.ndim else tensor)


def mask_of(inputs: Inputs) -> Tensor | None:
    """Which tokens are real ones, ``[N, T]`` bool; None of inputs without a mask."""
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
    return mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None


def lengths_of(inputs: Inputs) -> Tensor | None:
    """Tokens of every sample up to its last real one, ``[N]`` int64; None of inputs without a mask."""
    mask = mask_of(inputs)
    return None if mask is None else (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)


def trimmed(inputs: Inputs) -> Inputs:
    """Without the padding behind the longest of the samples; a token of it costs as much as any other."""
    lengths = lengths_of(inputs)
    if lengths is None:
        return inputs
    full, width = inputs["attention_mask"].shape[1], max(1, int(lengths.max()))
    return mapped(inputs, lambda t: t[:, :width] if t.ndim > 1 and t.shape[1] == full else t)


def split(inputs: Inputs, size: int) -> list[Inputs]:
    """In parts of at most ``size`` samples."""
    return [part_of(inputs, slice(at, at + size)) for at in range(0, samples_in(inputs), size)]


def moved(inputs: Inputs, device: str | torch.device) -> Inputs:
    """On a device."""
    return mapped(inputs, lambda tensor: tensor.to(device))


def copied(inputs: Inputs) -> Inputs:
    """A copy, for a model whose first layer works in place."""
    return mapped(inputs, torch.clone)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Several batches as one. Their samples must be of one shape, named ones as wide as one another.

    Raises:
        ValueError: batches of different shapes.
    """
    if isinstance(parts[0], list):
        return [sample for part in parts for sample in part]
    leaves, tree = tree_flatten(parts[0])
    columns = zip(leaves, *(tree_leaves(part) for part in parts[1:]), strict=True)
    try:
        whole = [torch.cat(c) if isinstance(c[0], Tensor) and c[0].ndim else c[0] for c in columns]
    except RuntimeError as cause:
        raise ValueError(f"batches of different shapes cannot be joined: {cause}") from cause
    return tree_unflatten(whole, tree)
