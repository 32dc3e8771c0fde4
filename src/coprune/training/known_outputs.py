"""What the unpruned model puts out for every sample, asked once instead of in every pass.

Shapes: ``N`` samples, ``B`` of a batch, ``T`` tokens of the longest of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.tasks.outputs import Outputs
from coprune.tracing.forward import Inputs, copied, lengths_of, mask_of, samples_in
from coprune.tracing.hooks import Recorded, recorded


@dataclass(frozen=True)
class Rows:
    """A tensor of all samples, one by one.

    Attributes:
        each: of every sample, ``[…]``; of tokens without the padding behind them.
        of_tokens: whether the first axis of each is tokens.
    """

    each: tuple[Tensor, ...]
    of_tokens: bool

    @staticmethod
    def of(parts: Sequence[Tensor], batches: Sequence[Inputs]) -> Rows:
        """From what was put out for some batches, ``[B, …]`` each."""
        masks = [mask_of(batch) for batch in batches]
        tokens = all(m is not None and m.shape == t.shape[:2] for m, t in zip(masks, parts, strict=True))
        rows = tuple(row for part in parts for row in part)
        if not tokens:
            return Rows(rows, False)
        lengths = [n for batch in batches if (found := lengths_of(batch)) is not None for n in found.tolist()]
        return Rows(tuple(row[:n] for row, n in zip(rows, lengths, strict=True)), True)

    def together(self, samples: Sequence[int], width: int | None) -> Tensor:
        """Those of some samples, ``[B, …]``; of tokens as wide as their batch."""
        rows = [self.each[number] for number in samples]
        if self.of_tokens and width is not None:
            rows = [F.pad(row, (0, 0) * (row.ndim - 1) + (0, width - len(row))) for row in rows]
        return torch.stack(rows)


@dataclass(frozen=True)
class KnownOutputs:
    """A teacher's outputs for every sample of a source.

    Attributes:
        outputs: a tensor each.
        hidden: block → outputs, an entry a run.
    """

    outputs: tuple[Rows, ...]
    hidden: Mapping[str, Sequence[Rows]]

    def of(self, samples: Tensor, inputs: Inputs) -> tuple[Outputs, Recorded]:
        """Outputs and hidden ones of a batch.

        Args:
            samples: their numbers, ``[B]`` int64.
            inputs: of these samples.
        """
        at, mask = samples.tolist(), mask_of(inputs)
        width = None if mask is None else mask.shape[1]
        hidden = {name: [run.together(at, width) for run in runs] for name, runs in self.hidden.items()}
        return Outputs(tuple(rows.together(at, width) for rows in self.outputs), mask_of(inputs)), hidden


@torch.no_grad()
def known_outputs(
    network: nn.Module,
    outputs_of: Callable[[nn.Module, Inputs], Outputs],
    blocks: Iterable[str],
    batches: Sequence[Inputs],
    *,
    memory: int,
) -> KnownOutputs | None:
    """Ask a network about all samples once.

    Args:
        network: in evaluation mode, where the batches are.
        outputs_of: (network, inputs) → its outputs.
        blocks: modules whose outputs are wanted too.
        batches: of all samples; padding stands behind a text's end.
        memory: bytes that the outputs may take.

    Returns:
        The outputs, or None when they would take more, or are not one a sample.
    """
    outputs: list[Outputs] = []
    hidden: dict[str, list[list[Tensor]]] = {}
    samples = sum(map(samples_in, batches))
    for batch in batches:
        count = samples_in(batch)
        with recorded(network, blocks) as found:
            outputs.append(outputs_of(network, copied(batch)))  # its first layer may work in place
        every = [*outputs[-1].tensors, *(o for runs in found.values() for o in runs)]
        if any(len(o) != count for o in every):
            return None  # windows of samples, which cannot be told apart by their numbers
        if sum(o.nbytes for o in every) / count * samples > memory:
            return None
        for name, runs in found.items():
            hidden.setdefault(name, []).append([o.clone() for o in runs])
    of_all = [Rows.of(parts, batches) for parts in zip(*(o.tensors for o in outputs), strict=True)]
    runs_of_all = {
        name: [Rows.of(run, batches) for run in zip(*parts, strict=True)] for name, parts in hidden.items()
    }
    return KnownOutputs(tuple(of_all), runs_of_all)
