"""The Python interface: a model and loaders in, a smaller model with its plan and figures out."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coprune import given
from coprune.bounds import Device, Samples, Seed
from coprune.data.from_loaders import from_loaders, take
from coprune.data.loader import read_as
from coprune.data.reads import Reads
from coprune.errors import UserError
from coprune.methods.registry import find_method, unknown_argument
from coprune.models.canonicalize import canonical_copy, restore_format
from coprune.options import checked, made, options_of
from coprune.pipeline.checks import check_calibration
from coprune.pipeline.environment import pick_device
from coprune.pipeline.outcome import Outcome
from coprune.pipeline.prune import prune_model
from coprune.pipeline.settings import PruneSettings, check_settings
from coprune.pipeline.surviving import Surviving, check_made_of, surviving
from coprune.pipeline.which_task import Asked, scaled, which_task
from coprune.plan import Plan
from coprune.recovery import RECOVERIES, Pair, find_recovery
from coprune.recovery.registry import RecoveryOrNone
from coprune.seeding import seeded
from coprune.store.state_dict import check_finite
from coprune.task import Task
from coprune.tracing.forward import check_takes, part_of
from coprune.user_code import within


def prune(
    model: nn.Module,
    *,
    train: Iterable[Any] | None = None,
    eval: Iterable[Any] | None = None,
    calibration: Iterable[Any] | None = None,
    calibration_samples: int = 2000,
    validation: Iterable[Any] | None = None,
    task: str | Task | None = None,
    metric: Any = None,
    outputs: str | Sequence[str] | Callable[[Any], Any] = (),
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    collect: Callable[[Any], tuple[Any, Any]] | None = None,
    method: str = "complementary",
    keep_macs: float | None = None,
    keep_params: float | None = None,
    keep_units: float | None = None,
    keep_heads: float | None = None,
    latency_ms: float | None = None,
    max_drop: float | None = None,
    allocation: str = "auto",
    schedule: str = "oneshot",
    between_epochs: int | None = None,
    between_fraction: float | None = None,
    between_lr: float | None = None,
    recovery: str = "auto",
    finetune_epochs: int = 0,
    finetune_lr: float | None = None,
    finetune_optimizer: str | None = None,
    distill: float | None = None,
    match: float | None = None,
    units: str | Iterable[str] | None = (),
    skip: str | Iterable[str] | None = (),
    only: str | Iterable[str] | None = (),
    round_to: int = 1,
    seed: int = 0,
    device: str | torch.device = "auto",
    force: bool = False,
    **options: Any,
) -> Outcome:
    """Prune a trained network.

    Args:
        model: any network; left as it is.
        train: batches of inputs, or of (inputs, targets), e.g. a ``DataLoader``; read by fine-tuning, and for
            the calibration samples when none are given.
        eval: held-out batches; only reported on, never used to decide. Without them a part of the calibration
            samples is set aside.
        calibration: batches that statistics and decisions are based on. Best disjoint from ``train``, and
            needed where ``max_drop`` judges what was fine-tuned.
        calibration_samples: how many to take of ``train`` otherwise: from all over a ``DataLoader`` that does
            not shuffle, else from the start.
        validation: batches that the model has not seen, to judge ``max_drop``, the knee and training; without
            it calibration samples do, on which a model that has learned them by heart seems to lose less.
        task: what outputs and targets are: a name (``segmentation``, ``text-generation``, …, see
            :data:`coprune.task.TASKS`) or a :class:`coprune.Task`; found where it is plain: class numbers are
            classification, and 🤗 classes say theirs.
        metric: what judges: a name, a torchmetrics metric, 🤗 ``compute_metrics``, a function (model,
            batches) → float, or a :class:`coprune.Metric`; without one or without targets agreement with
            ``model``.
        outputs: which parts of the output count: names, or a function (output) → tensors.
        loss: (output, targets) → scalar, for training and Taylor's scores.
        collect: (batch) → (inputs, targets), where a batch of yours says something else.
        method: ``complementary``; for channels ``cosep``, ``bn_scale``, ``fpgm``, ``lamp``, ``hessian``;
            for attention heads ``cahp``, ``michel``, ``medoid``, ``last_layers``, ``head_magnitude``; for
            all of them ``random``, ``magnitude``, ``magnitude_l2``, ``taylor``, ``wanda_sp``, ``flap``.
        keep_macs, keep_params, keep_units, keep_heads, latency_ms, max_drop: at most one; none: the
            method's own knee decides.
        allocation, schedule, recovery, units, skip, only, round_to, seed, device: as on the command line.
        between_epochs, between_fraction, between_lr: training after each layer with
            ``schedule="layerwise"``: passes (2), the share of ``train`` in each (0.25), and the first
            learning rate (0.01).
        finetune_epochs: passes over ``train`` at the end.
        finetune_lr: highest learning rate; 0.02, cosine to 0; of transformers 2e-5, linear to 0.
        finetune_optimizer: ``sgd`` or ``adamw``; transformers are trained with ``adamw`` unless you say else.
        distill: weight of the unpruned model's soft labels in the loss; 0.9.
        match: weight of the error of hidden outputs against the unpruned model's, added to the loss;
            10 with soft labels when not given.
        force: go on, with a note, where the figures cannot mean anything: a base no better than always
            answering one class, calibration samples that are all alike.
        options: the method's own settings, e.g. ``mss="nearest"`` for cosep, and any other option of
            ``coprune prune``, with ``_`` for ``-``: ``finetune_schedule="linear"``, ``batch_size=64``.

    Returns:
        An outcome with ``.model``, ``.plan``, ``.result`` and ``.save(folder)``.

    Raises:
        UserError: a ``ValueError`` whose message is one line: the cause and the way out.

    """
    settings = _settings({**locals(), **options}, options)
    meant = Asked(task, metric, outputs, loss)
    calibration_samples = checked("calibration_samples", calibration_samples, Samples)
    if max_drop is not None and finetune_epochs and calibration is None and validation is None:
        raise UserError(
            "max_drop is judged on calibration samples, and fine-tuning would learn them by heart where they "
            "are part of train; give validation= a loader of other samples"
        )
    with seeded(settings.seed):
        deciding = (train if calibration is None else calibration, eval)
        data = from_loaders(
            train=train,
            heldout=eval,
            calibration=calibration,
            calibration_samples=calibration_samples,
            validation=validation,
            reads=read_as(deciding, Reads.of(model, own=collect), meant.name),
        )
        return prune_model(model, data, settings, meant)


def _settings(asked: Mapping[str, Any], others: Iterable[str]) -> PruneSettings:
    """What was asked for.

    Args:
        asked: all arguments by name.
        others: those that the function does not name.

    Raises:
        UserError: an unknown argument, or a value that none may have.
    """
    given.module(asked["model"], "model")
    known = options_of(PruneSettings)
    for name in others:
        if name not in known:
            arguments = {*inspect.signature(prune).parameters, *known}
            raise unknown_argument(name, find_method(asked["method"]), arguments)
    settings = made(
        PruneSettings,
        {
            name: given.words(asked[name], name) if option.is_list and not option.is_number else asked[name]
            for name, option in known.items()
            if name in asked
        },
    )
    check_settings(settings)
    pick_device(settings.device)
    return settings


def recover_model(
    model: nn.Module,
    *,
    teacher: nn.Module,
    calibration: Iterable[Any],
    plan: Plan | Mapping[str, Any] | str | Path | None = None,
    recovery: str = "least-squares",
    calibration_samples: int = 1000,
    task: str | Task | None = None,
    outputs: str | Sequence[str] | Callable[[Any], Any] = (),
    collect: Callable[[Any], tuple[Any, Any]] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> nn.Module:
    """Bring back what a model lost that was pruned anywhere: no targets are read.

    Args:
        model: pruned; left as it is.
        teacher: the unpruned model, with the weights that were pruned.
        calibration: batches of inputs, or of (inputs, targets); targets are not read.
        plan: what was cut, or its file, or the folder of its run; found by the channels' behaviour when it is
            not given.
        recovery: ``least-squares``; ``reconstruction``, least squares and then all layers together, which is
            better and slower; ``channel-least-squares``, each layer by itself; or ``bn``, batch-norm
            re-estimation.
        calibration_samples: how many to take.
        task, outputs, collect: see :func:`prune`.
        seed: which pixels are sampled, and the order of the samples.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        A recovered copy on the CPU, in evaluation mode.

    Raises:
        UserError: the two are not one network, or the plan is for another.
    """
    calibration_samples = checked("calibration_samples", calibration_samples, Samples)
    seed = checked("seed", seed, Seed)
    checked("recovery", recovery, RecoveryOrNone)
    cut_by = given.plan(plan)
    where = pick_device(checked("device", device, Device))
    for name, network in (("model", model), ("teacher", teacher)):
        check_finite(given.module(network, name).state_dict(), model=network, where=name)
    with seeded(seed):
        meant = Asked(task, None, outputs)
        reads = read_as((calibration,), Reads.of(model, own=collect), meant.name)
        samples = take(calibration, calibration_samples, name="calibration=", reads=reads)
        for note in check_calibration(samples):
            warnings.warn(note, stacklevel=2)
        candidate, full = canonical_copy(model), canonical_copy(teacher)
        with within("calibration="):
            for network in (full, candidate):
                check_takes(network, part_of(next(samples.batches(1))[0], [0]))
        check_made_of(cut_by, full)
        # Batch norms need not know what was cut.
        left = Surviving({}, ())
        if RECOVERIES[recovery].compares:
            left = surviving(candidate, full, samples, cut_by.groups if cut_by else None)
        meaning = which_task(full, next(samples.batches(2)), meant, labelled=samples.labels is not None)
        meaning = scaled(meaning, full, samples)
        pair = Pair(candidate, full, left.outputs, left.decisions, where, meaning)
        find_recovery(recovery).run(pair, samples, seed=seed)
    return restore_format(candidate.cpu().eval())
