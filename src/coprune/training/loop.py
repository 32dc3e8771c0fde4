"""The one training loop: base models, fine-tuning and distillation all go through :func:`fit`.

Accelerate puts the model on its device, runs mixed precision and, in a run of several processes, averages
their gradients. Every process takes its share of the same batch, so a step is one over all of its samples:
only batch norms see their own share's statistics alone, and their running statistics are averaged.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune.data import Source, limited
from coprune.data.source import batch_seed, check_finite_inputs, where_in
from coprune.distributed.collectives import gathered, summed
from coprune.distributed.world import is_first, own, own_part, rank, world
from coprune.errors import UserError, setting
from coprune.measure.evaluation import CLASSIFICATION, check_outputs
from coprune.progress import track
from coprune.task import Task
from coprune.tasks.outputs import Outputs
from coprune.tracing.forward import Inputs, moved, part_of, run, samples_in, taking, tensors_of
from coprune.tracing.hooks import recorded
from coprune.tracing.modes import evaluating, gradients
from coprune.training.accelerator import accelerated, layout_of, put_back
from coprune.training.adaptive_clipping import limit_gradients
from coprune.training.checkpoint import Checkpoint
from coprune.training.distill import Block, Teacher, matched_blocks, matching_loss
from coprune.training.no_dropout import functions_without_dropout, modules_without_dropout
from coprune.training.optimizers import optimizer_for, scheduler
from coprune.training.recipe import Recipe
from coprune.user_code import within


class DivergedError(UserError):
    """The loss, the weights or their outputs became NaN or Inf; raised in every process."""


class TooSmallError(UserError):
    """Batches have too few samples for batch norm to learn from."""


@dataclass(frozen=True)
class FitLog:
    """What a training did: mean loss and top-1 on the (augmented) batches, an entry an epoch."""

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    steps: int


def fit(
    model: nn.Module,
    source: Source,
    recipe: Recipe,
    *,
    seed: int,
    task: Task = CLASSIFICATION,
    teacher: nn.Module | Teacher | None = None,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    label: str = "training",
    norms: bool = True,
) -> FitLog:
    """Train in place; in a run of several processes all end with the same weights.

    With a teacher nothing but batch norm is in training mode: dropout and dropped paths are off. Weights that
    are frozen stay as they are, unless all of them are: then that is how the model was deployed.

    Args:
        model: takes the source's inputs; left in evaluation mode on the CPU or ``device``.
        source: the training samples.
        recipe: everything about the schedule.
        seed: order and augmentation of the batches.
        task: its loss is minimised.
        teacher: the unpruned model, used when ``recipe.distills``, and what is known of it. With known
            outputs the source's labels are the numbers of the samples, so that none can be learned from.
        checkpoint: where to save state; if it holds one, training continues from there and ends
            with the same weights as an undisturbed one.
        device: ``"cpu"`` or ``"cuda"``.
        label: of the progress bar.
        norms: whether batch norms go by each batch; else by the statistics that they have, which stay.

    Raises:
        DivergedError: the loss, or at the end the weights or their outputs, became NaN or Inf.
        TooSmallError: batch norm cannot learn from batches of one sample (a process).
        UserError: distillation without a teacher.
        ValueError: known answers, but labels to learn from.
    """
    if isinstance(teacher, nn.Module):
        teacher = Teacher(teacher)
    if recipe.distills and teacher is None:
        raise UserError("distillation asked for, but there is no unpruned model to learn from")
    if teacher is not None and teacher.known is not None and recipe.distill < 1:
        raise ValueError("with known outputs the labels are numbers of samples; distill must be 1")
    if recipe.images is not None:
        source = limited(source, recipe.images, seed=seed)
    frozen = not any(p.requires_grad for p in model.parameters())
    with (
        gradients(model.parameters() if frozen else (), True),
        accelerated(recipe, device, idle=world() > 1 and _has_idle(model, source, task)) as accelerator,
    ):
        learned_from = teacher if recipe.distills else None
        training = _Training(model, source, recipe, accelerator, learned_from, checkpoint, task, norms)
        for epoch, inputs, labels in training.batches(seed=seed, label=label):
            # Dropout draws from the global generator: a function of the step, as everything else.
            torch.manual_seed(batch_seed(seed, epoch, training.done) ^ rank())
            training.step(epoch, inputs, labels)
        return training.end()


@dataclass
class _Training:
    """One training with Accelerate set up for it: its state between two steps.

    Attributes:
        model, source, recipe, accelerator, checkpoint: see :func:`fit`.
        teacher: None where nothing is learned from it.
        task: whose loss counts.
        by_batch: whether batch norms go by each batch.
    """

    model: nn.Module
    source: Source
    recipe: Recipe
    accelerator: Accelerator
    teacher: Teacher | None
    checkpoint: Checkpoint | None
    task: Task
    by_batch: bool

    def __post_init__(self) -> None:
        model, recipe, accelerator = self.model, self.recipe, self.accelerator
        every = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        self.norms = every if self.by_batch else []
        if self.norms and recipe.batch_size < 2 * world():
            raise TooSmallError(
                _too_small(f"a batch of {recipe.batch_size}", f"give {setting('batch_size')}")
            )
        self.layout = layout_of(model, "cpu" if accelerator.device.type == "cpu" else "gpu")
        # First to the device, so that the optimizer holds, and a checkpoint restores, what is trained there.
        model.to(accelerator.device)
        model.to(memory_format=self.layout)
        optimizer = optimizer_for(recipe, model)
        self.done, self.sums = 0, dict[int, list[float]]()
        if self.checkpoint:
            self.done, self.sums = self.checkpoint.restore(model, optimizer, scaler=accelerator.scaler)
        if not is_first():  # the sums of all are the first one's
            self.sums = {epoch: [0.0] * len(sums) for epoch, sums in self.sums.items()}
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr
        self.steps = self.source.steps(recipe.batch_size, recipe.fraction)
        self.schedule = scheduler(recipe, optimizer, steps_per_epoch=self.steps)
        self._pass_over(self.done)
        self.trained, self.optimizer = accelerator.prepare(model, optimizer)
        self.trained.train()
        for still in () if self.by_batch else every:
            still.eval()
        self.blocks: Mapping[str, Block] = {}
        if self.teacher is not None:
            self.teacher.network.to(accelerator.device).eval()
            # Its outputs have no dropout; noise that a small model cannot afford would hide them.
            modules_without_dropout(model)
            if recipe.match > 0:
                self.blocks = matched_blocks(model, self.teacher.network, self.teacher.kept)
        # Targets are then the numbers of samples.
        self.known = self.teacher is not None and self.teacher.known is not None
        self.buffers = [b for m in self.norms for b in (m.running_mean, m.running_var) if b is not None]
        self.saved_at = time.monotonic()
        self.last: Inputs | None = None

    def batches(self, *, seed: int, label: str) -> Iterator[tuple[int, Inputs, Any]]:
        """(epoch, own inputs, all targets) from where the training stopped to its end, with progress."""
        recipe, (first, skip) = self.recipe, divmod(self.done, self.steps)
        epochs, total = range(first, recipe.epochs), recipe.epochs * self.steps
        each = partial(self.source.epoch, recipe.batch_size, seed=seed, fraction=recipe.fraction)
        passes = (each(epoch=epoch, skip=skip if epoch == first else 0) for epoch in epochs)
        stream = ((epoch, *batch) for epoch, batches in zip(epochs, passes, strict=True) for batch in batches)
        for epoch, inputs, labels in track(stream, label=label, total=total, done=self.done):
            if self.norms and _count(inputs, labels) < 2 * world():
                self._leave_out(_count(inputs, labels))
            else:
                yield epoch, inputs, labels

    def _leave_out(self, samples: int) -> None:
        """Batch norm cannot learn from one value a channel: the last samples of this epoch's order.

        Others are left out next time. A user's own loader may have no other batches.
        """
        self.done += 1
        self._pass_over(1)
        if self.done % self.steps == 0 and not self.sums:
            put_back(self.accelerator, self.model, self.trained)
            raise TooSmallError(_too_small(f"a whole epoch in batches of {samples}", "give batches of"))

    def step(self, epoch: int, inputs: Inputs, targets: Any) -> None:
        """Learn from one batch: own inputs, and the labels of all processes."""
        count = _count(inputs, targets)
        own_targets = part_of(targets, own_part(count))
        x, y = moved(inputs, self.accelerator.device), moved(own_targets, self.accelerator.device)
        if isinstance(x, Tensor) and x.ndim == 4:
            x = x.contiguous(memory_format=self.layout)
        self.last, weight = x, _weight(count)
        with within(where_in(self.source, self.done % self.steps)):
            outputs, loss = self._loss(x, y, weight=weight)
        self.accelerator.backward(loss * weight)
        self.accelerator.unscale_gradients(self.optimizer)
        if self.recipe.unit_clip > 0:
            limit_gradients(self.model, share=self.recipe.unit_clip)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        mean = _average(self.buffers, loss=float(loss.detach()))
        self.done += 1
        metric = self.task.judged
        judged = metric.pairs and metric.reads_targets and y is not None and not self.known
        entry = self.sums.setdefault(epoch, [0.0] * (4 if judged else 2))
        if weight:
            samples = samples_in(x)
            figures = metric.sums(outputs, y).sum(0).tolist() if judged else []  # type: ignore[misc]
            for at, figure in enumerate((float(loss.detach()) * samples, samples, *figures)):
                entry[at] += figure
        if not mean < float("inf"):
            put_back(self.accelerator, self.model, self.trained)
            with within(where_in(self.source, (self.done - 1) % self.steps)):
                check_finite_inputs(inputs)
            raise DivergedError(
                f"the loss became {mean} after {self.done} steps; lower the learning rate ({self.recipe.lr})"
            )
        self._save()

    def _loss(self, x: Inputs, y: Any, *, weight: float) -> tuple[Outputs, Tensor]:
        """Outputs, detached, and the loss of this process's part."""
        teacher, recipe, task = self.teacher, self.recipe, self.task
        with (
            taking(self.model, x),
            recorded(self.model, self.blocks) as hidden,
            functions_without_dropout() if teacher else nullcontext(),
        ):
            output = run(self.trained, x)
            outputs = task.read(output, x)
        seen = Outputs(tuple(t.detach() for t in outputs.tensors), outputs.mask)
        if task.classifies and not self.known:
            check_outputs(seen.tensors[0], y)
        if teacher is None:
            return seen, task.loss_of(output, x, y)
        with torch.no_grad(), self.accelerator.autocast():
            soft, theirs = teacher.outputs_for(x, y, task, self.blocks)
        taught = task.divergence.taught(outputs.float(), soft.float(), temperature=recipe.temperature)
        loss = recipe.distill * taught
        if recipe.distill < 1:
            loss = loss + (1 - recipe.distill) * task.loss_of(output, x, y)
        if self.blocks:
            apart = matching_loss(hidden, theirs, x, teacher.kept, blocks=self.blocks, weight=weight)
            loss = loss + recipe.match * apart
        return seen, loss

    def _save(self) -> None:
        """At the end of an epoch, and now and then."""
        if self.checkpoint is None:
            return
        patience = self.recipe.patience_s
        # Clocks differ; the first process's counts.
        if self.done % self.steps == 0 or gathered(time.monotonic() - self.saved_at >= patience)[0]:
            scaler, sums = self.accelerator.scaler, _summed(self.sums)
            self.checkpoint.save(self.model, self.optimizer, step=self.done, sums=sums, scaler=scaler)
            self.saved_at = time.monotonic()

    def end(self) -> FitLog:
        """The model as anybody may use it, and what the training did."""
        sums = _summed(self.sums)
        put_back(self.accelerator, self.model, self.trained)
        # The last step's loss was that of the weights before it, and its batch norms' that of the batch.
        if not all(gathered(_is_sound(self.model, self.last))):
            raise DivergedError(
                f"the weights ended with NaN or Inf; lower the learning rate ({self.recipe.lr})"
            )
        return FitLog(
            loss=tuple(s[0] / s[1] for s in sums.values()),
            accuracy=tuple(s[2] / s[3] if len(s) > 2 else math.nan for s in sums.values()),
            steps=self.done,
        )

    def _pass_over(self, steps: int) -> None:
        """Steps that the optimizer does not take: done in an earlier life, or left out."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about that
            for _ in range(steps):
                self.schedule.step()


@torch.no_grad()
def _is_sound(model: nn.Module, inputs: Inputs | None) -> bool:
    """Whether weights, and their outputs for these inputs in evaluation mode, are finite.

    Batch norms' statistics show in those; other buffers may hold Inf, as limits do.
    """
    values: list[Tensor] = list(model.parameters())
    if inputs is not None:
        values += [t for t in tensors_of(run(model, inputs)) if t.is_floating_point()]
    return all(bool(v.isfinite().all()) for v in values)


def _weight(samples: int) -> float:
    """What the mean loss over this process's part of a batch weighs.

    Gradients are averaged over the processes, whoever has how many samples; weighed like this, the average
    is the gradient of the mean over the batch.

    Args:
        samples: of the batch.
    """
    return len(own(range(samples))) * world() / samples


def _too_small(what: str, way: str) -> str:
    """Why batch norm learns nothing from it, and the way out."""
    each = f" for each of {world()} processes" if world() > 1 else ""
    return f"{what} leaves batch norm one sample{each}; {way} {2 * world()} or more"


def _has_idle(model: nn.Module, source: Source, task: Task) -> bool:
    """Whether some weights have no effect on the outputs, for which every process would wait."""
    inputs, _ = next(iter(source.batches(1)))
    weights = [p for p in model.parameters() if p.requires_grad]
    with evaluating(model), torch.enable_grad():
        outputs = task.outputs(model, moved(inputs, weights[0].device))
        total = torch.stack([t.sum() for t in outputs.tensors]).sum()
        return any(g is None for g in torch.autograd.grad(total, weights, allow_unused=True))


def _count(inputs: Inputs, targets: Any) -> int:
    """Samples of a batch: targets are those of all processes, inputs are this one's."""
    return samples_in(inputs if targets is None else targets)


def _average(buffers: Sequence[Tensor], *, loss: float) -> float:
    """Average buffers over the processes, in place, and hand back the mean of their losses.

    All in one exchange, since there is one in every step. A loss that is NaN in one process is NaN in all
    of them: they stop together, and none waits for another.
    """
    if world() == 1:
        return loss
    own_loss = torch.tensor([loss], dtype=torch.float64)
    flat = torch.cat([own_loss, *(b.flatten().double().cpu() for b in buffers)])
    mean, *averages = (summed(flat) / world()).split([1, *(b.numel() for b in buffers)])
    for buffer, average in zip(buffers, averages, strict=True):
        buffer.copy_(average.view_as(buffer))
    return float(mean)


def _summed(sums: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    """The log's sums over all processes."""
    shares = gathered(sums)
    return {
        epoch: [sum(column) for column in zip(*(s[epoch] for s in shares), strict=True)] for epoch in sums
    }
