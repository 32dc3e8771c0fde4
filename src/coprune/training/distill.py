"""What a pruned model learns from the unpruned one: its soft labels, and its hidden outputs.

A layer that reads removed units still makes as many outputs as before, so what it hands on can be compared
with the unpruned model's, place by place (hints, Romero et al. 2015, arXiv 1412.6550, without the layer
between that other widths need; as in TinyBERT, Jiao et al. 2020, arXiv 1909.10351, §3.1).

Shapes: ``N`` samples, ``T`` tokens, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coprune.distributed.collectives import summed
from coprune.distributed.world import world
from coprune.layers import channel_count, is_convolution, is_dense, is_gpt2_linear
from coprune.task import Task
from coprune.tasks.outputs import Outputs
from coprune.tracing.forward import Inputs, mask_of
from coprune.tracing.hooks import Recorded, recorded
from coprune.training.known_outputs import KnownOutputs

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Block:
    """Where a block's hidden outputs have their channels.

    Attributes:
        made: channels that the last of the layers which are compared in it hands on.
        convolves: whether anything in it is a convolution.
    """

    made: int
    convolves: bool

    def axis(self, shape: Sequence[int]) -> int:
        """Axis of the channels of outputs ``[N, …]``.

        It is as long as the layer says; where several axes are or none is, it stands behind the samples if
        anything is a convolution, and last otherwise.
        """
        found = [a for a in (1, len(shape) - 1) if shape[a] == self.made]
        usual = 1 if self.convolves else len(shape) - 1
        return found[0] if len(found) == 1 else usual


def matched_blocks(
    student: nn.Module, teacher: nn.Module, kept: Mapping[str, Tensor] | None = None
) -> dict[str, Block]:
    """Where both models can be compared: around every layer that lost inputs and no outputs.

    The nearest module around the layer that is no mere container hands on what the block made of it, a norm
    or a residual sum included; where that is the model itself, as in a plain chain, the layer's own output is
    compared, and the outputs that it lost are left out.

    Args:
        student: pruned.
        teacher: the model it was cut from.
        kept: layer → its outputs in the teacher that are still there, of layers that lost some.

    Returns:
        Name of module → where its channels are, in the order of the network.
    """
    before = dict(teacher.named_modules())
    found: dict[str, Block] = {}
    for name, layer in student.named_modules():
        # Asked of the teacher's: a depthwise layer that is left with one channel looks dense.
        if name not in before or not (is_dense(before[name]) or is_gpt2_linear(before[name])):
            continue
        reads, makes = channel_count(layer, "input"), channel_count(layer, "output")
        read, made = channel_count(before[name], "input"), channel_count(before[name], "output")
        around = name.rpartition(".")[0]
        while around and isinstance(student.get_submodule(around), _CONTAINERS):
            around = around.rpartition(".")[0]
        comparable = makes == made or (not around and kept is not None and name in kept)
        if reads != read and comparable and makes is not None:
            block = around or name
            parts = student.get_submodule(block).modules()
            found[block] = Block(makes, any(is_convolution(part) for part in parts))
    return found


@dataclass(frozen=True)
class Teacher:
    """The unpruned model that a pruned one learns from.

    Attributes:
        network: of which it was cut.
        kept: layer → its outputs in the teacher that are still there, where some are gone; without it fewer
            hidden outputs can be compared.
        known: its outputs, where they were computed beforehand; targets are then the numbers of samples.
    """

    network: nn.Module
    kept: Mapping[str, Tensor] | None = None
    known: KnownOutputs | None = None

    def outputs_for(self, x: Inputs, y: Any, task: Task, blocks: Iterable[str]) -> tuple[Outputs, Recorded]:
        """Outputs, as the task reads them, and hidden ones of a batch."""
        if self.known is not None:
            return self.known.of(y, x)
        with recorded(self.network, blocks) as hidden:
            return task.outputs(self.network, x), hidden


def matching_loss(
    student: Mapping[str, Sequence[Tensor]],
    teacher: Mapping[str, Sequence[Tensor]],
    inputs: Inputs,
    kept: Mapping[str, Tensor] | None = None,
    *,
    blocks: Mapping[str, Block],
    weight: float = 1.0,
) -> Tensor:
    """Mean over the blocks of the squared error, as a share of how far the teacher's outputs are apart.

    In a run of several processes outputs are apart over the whole batch, so that the losses, weighed and
    averaged, are that of the batch.

    Args:
        student, teacher: block → outputs, ``[N, C, H, W]``, ``[N, T, C]`` or ``[N, C]`` each, or those of
            signals and volumes, or with the channels last.
        inputs: tokens that their ``attention_mask`` ``[N, T]`` hides do not count.
        kept: as for :func:`matched_blocks`.
        blocks: what that says.
        weight: of this process's loss in the mean over the processes; with 0 its samples do not count.

    Returns:
        A scalar in float32; 0 where no block's outputs have equal shapes.
    """
    mask = mask_of(inputs)
    errors: list[Tensor] = []
    wanted_rows: list[Tensor] = []
    for name, outputs in student.items():
        for found, wanted in zip(outputs, teacher.get(name, ()), strict=False):
            if found.ndim < 2 or found.ndim != wanted.ndim:
                continue
            axis = blocks[name].axis(found.shape)
            if kept is not None and name in kept:
                wanted = wanted.index_select(axis, kept[name].to(wanted.device))
            if found.shape != wanted.shape:
                continue
            ours, theirs = (_rows(o.float(), mask, axis) for o in (found, wanted))
            errors.append((ours - theirs).square().sum())
            wanted_rows.append(theirs)
    shares = [
        error / apart.clamp_min(torch.finfo(apart.dtype).tiny)
        for error, (apart, rows) in zip(errors, _apart(wanted_rows, counted=weight > 0), strict=True)
        if rows > 1  # one alone is not apart from anything: any error would be infinite
    ]
    if not shares:
        return torch.zeros(())
    return torch.stack(shares).mean() * (world() / weight if weight else 1)


def _apart(rows: Sequence[Tensor], *, counted: bool) -> list[tuple[Tensor, int]]:
    """Squared distance from their mean, and number, of each of several sets of rows; over all processes.

    Args:
        rows: ``[M, C]`` each, of this process.
        counted: whether they are its own.
    """
    if world() == 1 or not rows:
        return [((r - r.mean(0)).square().sum(), len(r)) for r in rows]
    # Count, squares and sums of each set; one exchange for all of them.
    wide = [r.detach().double() for r in rows]
    own = [torch.cat([r.new_tensor([len(r), r.square().sum()]), r.sum(0)]) * counted for r in wide]
    everybodys = summed(torch.cat(own)).split([len(o) for o in own])
    return [
        ((all_[1] - all_[2:].square().sum() / all_[0].clamp_min(1)).to(r.dtype), int(all_[0]))
        for all_, r in zip(everybodys, rows, strict=True)
    ]


def _rows(output: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    """``[places, C]`` of an output with its channels on an axis."""
    if axis != output.ndim - 1:
        return output.movedim(axis, -1).flatten(0, -2)
    if mask is not None and output.ndim == 3 and mask.shape == output.shape[:2]:
        return output[mask]
    return output.reshape(-1, output.shape[-1])
