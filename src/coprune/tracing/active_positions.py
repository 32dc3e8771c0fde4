"""Which places of a layer's output can reach the prediction at all.

In a transformer not every token counts: padding does not, and in the last layer only the token that is
classified. An error made elsewhere costs nothing, so a regression must not spend itself there. Told by
the gradient: a place whose output has no gradient has no effect. A backward pass of every sample would
cost more than the rest of the profile, so a few samples tell which of the usual patterns a layer has
(all tokens but padding, the first, the last), and the others follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from coprune.layers import is_convolution, is_recurrent
from coprune.tracing.forward import Inputs, copied, logits_of, mask_of, samples_in, tensors_of
from coprune.tracing.hooks import hooked
from coprune.tracing.patches import output_positions


def has_tokens(layer: nn.Module, output: Tensor, *, samples: int) -> bool:
    """Whether the layer is applied at several places that may not all count: a linear one, to tokens."""
    if is_convolution(layer) or is_recurrent(layer):
        return False
    return output_positions(layer, output, samples=samples) > 1


Signal = Callable[[nn.Module, Inputs], Tensor]
"""One forward pass → a number that all that counts of the output has its own part in."""


def uneven_sum(tensor: Tensor, *, axis: int = -1, mask: Tensor | None = None) -> Tensor:
    """A sum in which everything counts differently, so that no gradient cancels: those of logits sum to 0.

    Args:
        tensor: ``[N, …]``.
        axis: of the channels.
        mask: places that count, ``[N, places]`` bool, of a tensor with its channels last.
    """
    generator = torch.Generator().manual_seed(0)
    values = tensor.movedim(axis, -1)
    sums = values @ (torch.rand(values.shape[-1], generator=generator) + 0.5).to(values)
    weights = (torch.rand(sums.shape, generator=generator) + 0.5).to(sums)
    return (sums * weights if mask is None else sums * weights * mask).sum()


def of_logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """Of a classifier."""
    return uneven_sum(logits_of(model, inputs))


@torch.enable_grad()
def active_positions(
    model: nn.Module, inputs: Inputs, names: Sequence[str], *, signal: Signal = of_logits
) -> dict[str, Tensor]:
    """Places of each layer's output that the model's output depends on.

    Args:
        model: in evaluation mode; its parameters' gradients are left alone.
        inputs: ``[N, …]``.
        names: layers; of one that runs several times, a place counts if it does in any of the runs.
        signal: what counts of the output.

    Returns:
        Layer → ``[N, places]`` bool, for those layers that are applied to tokens.
    """
    outputs: dict[str, list[Tensor]] = {}
    samples = samples_in(inputs)

    def keep(name: str, layer: nn.Module, _: object, output: Tensor) -> None:
        if has_tokens(layer, output, samples=samples):
            # Of a frozen model, such an output begins the graph.
            outputs.setdefault(name, []).append(output if output.requires_grad else output.requires_grad_())

    with hooked(model, {name: partial(keep, name) for name in names}):
        total = signal(model, inputs)
    if not outputs:
        return {}
    runs = [(name, output) for name, outs in outputs.items() for output in outs]
    gradients = torch.autograd.grad(total, [output for _, output in runs], materialize_grads=True)
    found: dict[str, Tensor] = {}
    for (name, _), gradient in zip(runs, gradients, strict=True):
        counts = (gradient != 0).any(-1).reshape(samples, -1)
        found[name] = found[name] | counts if name in found else counts
    return found


Pattern = Callable[[Tensor], Tensor]
"""Real tokens ``[N, places]`` bool → places that can reach the logits, of the same shape."""


def _first(real: Tensor) -> Tensor:
    return torch.zeros_like(real).index_fill(1, torch.tensor(0, device=real.device), True)


def _last(real: Tensor) -> Tensor:
    places = torch.arange(real.shape[1], device=real.device)
    return places == (places * real).amax(1, keepdim=True)


_PATTERNS: tuple[Pattern, ...] = (lambda real: real, torch.ones_like, _last, _first)


@dataclass(frozen=True)
class ActivePositions:
    """Which places of some layers can reach the logits, for any samples.

    Attributes:
        model: in evaluation mode.
        patterns: layer → its pattern; None where none of the usual ones fits, and gradients must tell.
        places: layer → places of the samples that were tried, which inputs without a mask have always.
    """

    model: nn.Module
    patterns: Mapping[str, Pattern | None]
    places: Mapping[str, int]
    signal: Signal = of_logits

    def of(self, inputs: Inputs) -> dict[str, Tensor]:
        """Layer → ``[N, places]`` bool."""
        unknown = [name for name, pattern in self.patterns.items() if pattern is None]
        found = active_positions(self.model, copied(inputs), unknown, signal=self.signal) if unknown else {}
        for name, pattern in self.patterns.items():
            if pattern is not None:
                found[name] = pattern(_real(inputs, self.places[name]))
        return found


def learn_active_positions(
    model: nn.Module, inputs: Inputs, names: Sequence[str], *, signal: Signal = of_logits
) -> ActivePositions:
    """Which pattern each layer has, from a few samples.

    Args:
        model: in evaluation mode.
        inputs: ``[N, …]``; of texts, some shorter than others.
        names: layers; those that are not applied to tokens are passed over.
    """
    found = active_positions(model, copied(inputs), names, signal=signal)
    patterns: dict[str, Pattern | None] = {}
    for name, seen in found.items():
        real = _real(inputs, seen.shape[1])
        fits = (p for p in _PATTERNS if real.shape == seen.shape and torch.equal(p(real), seen))
        patterns[name] = next(fits, None)
    places = {name: seen.shape[1] for name, seen in found.items()}
    return ActivePositions(model, patterns, places, signal)


def _real(inputs: Inputs, places: int) -> Tensor:
    """Which tokens are no padding, ``[N, places]``; all where there is no mask."""
    mask = mask_of(inputs)
    if mask is not None:
        return mask
    samples = samples_in(inputs)
    if isinstance(inputs, dict) and "input_ids" in inputs:
        places = inputs["input_ids"].shape[1]
    return torch.ones(samples, places, dtype=torch.bool, device=tensors_of(inputs)[0].device)
