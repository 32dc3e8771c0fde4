"""The one training loop: base models, fine-tuning and distillation all go through :func:`fit`.

Accelerate puts the model on its device, runs mixed precision and, in a run of several processes, averages
their gradients. Every process takes its share of the same batch, so a step is one over all of its samples:
only batch norms see their own share's statistics alone. What they remember is averaged over the processes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import LRScheduler

from coprune.data import Source, limited
from coprune.data.source import batch_seed, check_finite_inputs, where_in
from coprune.distributed.collectives import gathered, summed
from coprune.distributed.world import is_first, own, own_part, rank, world
from coprune.errors import UserError, setting
from coprune.measure.accuracy import check_outputs
from coprune.measure.mode import evaluating
from coprune.progress import track
from coprune.tracing.forward import Inputs, logits_of, moved, taking
from coprune.training.accelerator import accelerated, layout_of, put_back
from coprune.training.adaptive_clipping import limit_gradients
from coprune.training.checkpoint import Checkpoint
from coprune.training.distill import (
    Answers,
    Block,
    distillation_loss,
    matched_blocks,
    matching_loss,
    recorded,
)
from coprune.training.freezing import thawed
from coprune.training.no_dropout import functions_without_dropout, modules_without_dropout
from coprune.training.optimizers import optimizer_for, scheduler
from coprune.training.recipe import Recipe
from coprune.user_code import within


class DivergedError(UserError):
    """The loss, the weights or what they say became NaN or Inf; raised in every process."""


class TooSmallError(UserError):
    """Batches have too few samples for batch norm to learn from."""


@dataclass(frozen=True)
class FitLog:
    """What a training did: mean loss and top-1 on the (augmented) batches, an entry an epoch."""

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    steps: int


def _batches(
    source: Source, recipe: Recipe, *, seed: int, done: int, steps: int
) -> Iterator[tuple[int, Inputs, Tensor]]:
    """(epoch, own inputs, all labels) from where a training stopped to its end."""
    for epoch in range(done // steps, recipe.epochs):
        skip = done - epoch * steps if epoch == done // steps else 0
        for inputs, labels in source.epoch(
            recipe.batch_size, seed=seed, epoch=epoch, fraction=recipe.fraction, skip=skip
        ):
            yield epoch, inputs, labels


def fit(
    model: nn.Module,
    source: Source,
    recipe: Recipe,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    kept: Mapping[str, Tensor] | None = None,
    answers: Answers | None = None,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    label: str = "training",
) -> FitLog:
    """Train a classifier in place; in a run of several processes all end with the same weights.

    With a teacher nothing but batch norm is in training mode: dropout and dropped paths are off. Weights that
    are frozen stay as they are, unless all of them are: then that is how the model was deployed.

    Args:
        model: maps ``[B, …]`` to logits ``[B, C]``; left in evaluation mode on the CPU or ``device``.
        source: the training samples.
        recipe: everything about the schedule.
        seed: order and augmentation of the batches.
        teacher: the unpruned model, used when ``recipe.taught``.
        kept: layer → its outputs in the teacher that are still there, where some are gone; without it fewer
            hidden outputs can be compared.
        answers: of the teacher, known beforehand; the source's labels are then the numbers of the samples,
            so that no label can be learned from (``recipe.distill`` is 1).
        checkpoint: where to save state; if it holds one, training continues from there and ends
            with the same weights as an undisturbed one.
        device: ``"cpu"`` or ``"cuda"``.
        label: of the progress bar.

    Raises:
        DivergedError: the loss, or at the end the weights or what they say, became NaN or Inf.
        TooSmallError: batch norm cannot learn from batches of one sample (a process).
        UserError: distillation without a teacher.
        ValueError: known answers, but labels to learn from.
    """
    if recipe.taught and teacher is None:
        raise UserError("distillation asked for, but there is no unpruned model to learn from")
    if answers is not None and recipe.distill < 1:
        raise ValueError("with known answers the labels are numbers of samples; distill must be 1")
    if recipe.images is not None:
        source = limited(source, recipe.images, seed=seed)
    frozen = not any(p.requires_grad for p in model.parameters())
    with (
        thawed(model) if frozen else nullcontext(),
        accelerated(recipe, device, idle=world() > 1 and _has_idle(model, source)) as accelerator,
    ):
        return _descend(
            model,
            source,
            recipe,
            accelerator,
            seed=seed,
            teacher=teacher,
            kept=kept,
            answers=answers,
            checkpoint=checkpoint,
            label=label,
        )


def _descend(
    model: nn.Module,
    source: Source,
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    seed: int,
    teacher: nn.Module | None,
    kept: Mapping[str, Tensor] | None,
    answers: Answers | None,
    checkpoint: Checkpoint | None,
    label: str,
) -> FitLog:
    """What :func:`fit` says, with Accelerate set up for it."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if norms and recipe.batch_size < 2 * world():
        raise TooSmallError(_too_small(f"a batch of {recipe.batch_size}", f"give {setting('batch_size')}"))
    layout = layout_of(model, "cpu" if accelerator.device.type == "cpu" else "gpu")
    # First to the device, so that the optimizer holds, and a checkpoint restores, what is trained there.
    model.to(accelerator.device)
    model.to(memory_format=layout)
    if teacher is not None:
        teacher = teacher.to(accelerator.device).eval()
    optimizer = optimizer_for(recipe, model)
    scaler = accelerator.scaler
    done, sums = checkpoint.restore(model, optimizer, scaler=scaler) if checkpoint else (0, {})
    if not is_first():
        sums = {epoch: [0.0, 0.0, 0.0] for epoch in sums}  # those of all are the first one's
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr
    steps = source.steps(recipe.batch_size, recipe.fraction)
    schedule = scheduler(recipe, optimizer, steps_per_epoch=steps)
    _advance(schedule, done)
    trained, optimizer = accelerator.prepare(model, optimizer)
    trained.train()
    if recipe.taught:
        # The teacher speaks without dropout; noise that a small model cannot afford would hide what it says.
        modules_without_dropout(model)
    saved_at = time.monotonic()
    total = recipe.epochs * steps
    remembered = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
    blocks = matched_blocks(model, teacher, kept) if recipe.match > 0 and teacher is not None else {}
    stream = _batches(source, recipe, seed=seed, done=done, steps=steps)
    last: Inputs | None = None
    for epoch, inputs, labels in track(stream, label=label, total=total, done=done):
        if norms and len(labels) < 2 * world():
            # Batch norm cannot learn from one value a channel: the last samples of this epoch's order
            # are passed over, others next time. A user's own loader may have no other batches.
            done += 1
            _advance(schedule, 1)
            if done % steps == 0 and not sums:
                put_back(accelerator, model, trained)
                raise TooSmallError(
                    _too_small(f"a whole epoch in batches of {len(labels)}", "give batches of")
                )
            continue
        # Dropout draws from the global generator: a function of the step, as everything else.
        torch.manual_seed(batch_seed(seed, epoch, done) ^ rank())
        own_labels = labels[own_part(len(labels))]
        x, y = moved(inputs, accelerator.device), own_labels.to(accelerator.device)
        weight = _weight(len(labels))
        if isinstance(x, Tensor) and x.ndim == 4:
            x = x.contiguous(memory_format=layout)
        last = x
        with within(where_in(source, done % steps)):
            logits, loss = _step(
                trained,
                model,
                teacher,
                x,
                y,
                classes=own_labels if answers is None else None,
                recipe=recipe,
                blocks=blocks,
                kept=kept,
                answers=answers,
                weight=weight,
                how=accelerator,
            )
        accelerator.backward(loss * weight)
        accelerator.unscale_gradients(optimizer)
        if recipe.unit_clip > 0:
            limit_gradients(model, share=recipe.unit_clip)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(trained.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        mean = _average(remembered, loss=float(loss.detach()))
        done += 1
        entry = sums.setdefault(epoch, [0.0, 0.0, 0.0])
        counted = len(y) if weight else 0
        entry[0] += float(loss.detach()) * counted
        entry[1] += float((logits.detach().argmax(1) == y).sum()) if weight else 0.0
        entry[2] += counted
        if not mean < float("inf"):
            put_back(accelerator, model, trained)
            with within(where_in(source, (done - 1) % steps)):
                check_finite_inputs(inputs)
            raise DivergedError(
                f"the loss became {mean} after {done} steps; lower the learning rate ({recipe.lr})"
            )
        due = checkpoint is not None and done % steps == 0
        # Clocks differ; the first process's counts.
        if checkpoint and (due or gathered(time.monotonic() - saved_at >= recipe.patience_s)[0]):
            checkpoint.save(model, optimizer, step=done, sums=_summed(sums), scaler=scaler)
            saved_at = time.monotonic()
    sums = _summed(sums)
    put_back(accelerator, model, trained)
    # The last step's loss was that of the weights before it, and its batch norms' that of the batch.
    if not all(gathered(_is_sound(model, last))):
        raise DivergedError(f"the weights ended with NaN or Inf; lower the learning rate ({recipe.lr})")
    return FitLog(
        loss=tuple(s[0] / s[2] for s in sums.values()),
        accuracy=tuple(s[1] / s[2] for s in sums.values()),
        steps=done,
    )


@torch.no_grad()
def _is_sound(model: nn.Module, inputs: Inputs | None) -> bool:
    """Whether weights, and what they say to these inputs in evaluation mode, are finite.

    Batch norms' statistics speak through that; other buffers may hold Inf, as limits do.
    """
    values: list[Tensor] = list(model.parameters())
    if inputs is not None:
        values.append(logits_of(model, inputs))
    return all(bool(v.isfinite().all()) for v in values)


def _step(
    trained: nn.Module,
    model: nn.Module,
    teacher: nn.Module | None,
    x: Inputs,
    y: Tensor,
    *,
    classes: Tensor | None,
    recipe: Recipe,
    blocks: Mapping[str, Block],
    kept: Mapping[str, Tensor] | None,
    answers: Answers | None,
    weight: float,
    how: Accelerator,
) -> tuple[Tensor, Tensor]:
    """Logits ``[B, C]`` of one batch, and the loss.

    Args:
        trained: what is called: the model, or what averages its gradients over the processes.
        model: whose hidden outputs are compared.
        teacher: the unpruned model, if it is needed.
        x: own inputs.
        y: own labels.
        classes: the same on the CPU, where checking them makes nobody wait; None where they are none.
        recipe: weights of the parts of the loss.
        blocks: as from :func:`~coprune.training.distill.matched_blocks`.
        kept, answers: see :func:`fit`.
        weight: of this process's loss in the mean over the processes.
        how: its mixed precision.
    """
    quiet = functions_without_dropout() if recipe.taught else nullcontext()
    with taking(model, x), recorded(model, blocks) as ours, quiet:
        logits = logits_of(trained, x)
    if classes is not None:
        check_outputs(logits, classes)
    if teacher is None or not recipe.taught:
        return logits, F.cross_entropy(logits, y)
    if answers is not None:
        soft, theirs = answers.to(y)
    else:
        with torch.no_grad(), how.autocast(), recorded(teacher, blocks) as theirs:
            soft = logits_of(teacher, x)
    kl = distillation_loss(logits.float(), soft.float(), temperature=recipe.temperature)
    loss = recipe.distill * kl
    if recipe.distill < 1:
        loss = loss + (1 - recipe.distill) * F.cross_entropy(logits, y)
    if blocks:
        loss = loss + recipe.match * matching_loss(ours, theirs, x, kept, blocks=blocks, weight=weight)
    return logits, loss


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


def _has_idle(model: nn.Module, source: Source) -> bool:
    """Whether some parameters get no gradient, such as those of a pooler that nothing reads."""
    inputs, _ = next(iter(source.batches(1)))
    weights = [p for p in model.parameters() if p.requires_grad]
    with evaluating(model), torch.enable_grad():
        logits = logits_of(model, moved(inputs, weights[0].device))
        return any(g is None for g in torch.autograd.grad(logits.sum(), weights, allow_unused=True))


def _advance(schedule: LRScheduler, steps: int) -> None:
    """Let a schedule pass steps that the optimizer does not take: done in an earlier life, or passed over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns about that
        for _ in range(steps):
            schedule.step()


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
