"""How much a pruned network says what the unpruned one says: the figure where there are no targets.

Its targets are the unpruned network's outputs for the same samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coprune.tasks.divergence import Divergence
from coprune.tasks.metrics import Metric, share
from coprune.tasks.outputs import Cells, Outputs


def agreement(divergence: Divergence) -> Metric:
    """By what outputs mean.

    ``softmax``: places with the same most likely class; ``sigmoid``: labels answered alike; ``cosine``: mean
    cosine; ``gaussian``: R², the share of the unpruned outputs' variance that stays, each channel in units of
    its own spread.
    """

    def sums(outputs: Outputs, unpruned: Outputs) -> Tensor:
        pairs = zip(outputs.cells(divergence.axis), unpruned.cells(divergence.axis), strict=True)
        return torch.stack([_sums(divergence.kind, *pair) for pair in pairs]).sum(0)

    if divergence.kind == "gaussian":
        return Metric("r2", sums=sums, finish=lambda s: 1 - share(s), reads_targets=False)
    if divergence.kind == "cosine":
        return Metric("cosine", sums=sums, reads_targets=False)
    return Metric("agreement", unit="%", sums=sums, reads_targets=False)


def _sums(kind: str, found: Cells, wanted: Cells) -> Tensor:
    """``[N, 2]`` float64: the part that agrees (of a Gaussian, that does not) and the whole."""
    ours, theirs = found.values.double(), wanted.values.double().to(found.values.device)
    whole = torch.ones(ours.shape[:2], dtype=torch.float64, device=ours.device)
    if kind == "softmax":
        part = (ours.argmax(2) == theirs.argmax(2)).double()
    elif kind == "sigmoid":
        part = ((ours > 0) == (theirs > 0)).double().mean(2)
    elif kind == "cosine":
        part = F.cosine_similarity(ours, theirs, dim=2)
    else:
        rows = theirs.flatten(0, 1)
        spread = rows.std(0, correction=0).clamp_min(1e-12)
        part = ((ours - theirs) / spread).square().mean(2)
        whole = ((theirs - rows.mean(0)) / spread).square().mean(2)
    counts = found.count[:, 0].double()
    return torch.stack([(found.mean(x) * counts).cpu() for x in (part, whole)], 1)
