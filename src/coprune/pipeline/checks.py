"""Before long work: whether model and data fit, training is possible, and figures can mean anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from coprune.budget.decide import Choices
from coprune.budget.sensitivity_curves import Curved
from coprune.data import DataSet, LoaderSource, Source
from coprune.data.source import name_of, where_in
from coprune.data.subsample import spread_batches
from coprune.errors import UserError, setting
from coprune.measure import Score
from coprune.measure.evaluation import check_outputs
from coprune.measure.memory import check_batches
from coprune.result import Code, Note
from coprune.task import Task
from coprune.tracing.forward import check_takes, moved, part_of, samples_in, tensors_of
from coprune.training import Recipe
from coprune.training.check import check_trains
from coprune.user_code import within

FEW = 30
"""Calibration samples below which every statistic is a guess."""

_SAMPLED = 128
_ALIKE = 0.01


def check_first_samples(model: nn.Module, data: DataSet, task: Task) -> None:
    """Refuse training or calibration samples of another kind than the model takes, before anything is done.

    Args:
        model: on the CPU.
        data: of the run.
        task: reads the outputs.

    Raises:
        UserError: names the argument that a user's own loader was given by.
    """
    for source in (data.train, data.calibration):
        if source is None or not name_of(source):
            continue
        if isinstance(source, LoaderSource):
            examples, highest = source.examples, source.highest
        else:
            examples, highest = {0: part_of(next(source.batches(1))[0], [0])}, 0
        for number, example in examples.items():
            with within(where_in(source, number)):
                inputs = moved(example, "cpu")
                found = check_takes(model, inputs, partial(task.read, inputs=inputs))
        if examples and task.classifies and found.tensors[0].ndim == 2:
            with within(name_of(source)):
                check_outputs(found.tensors[0], torch.tensor([highest]))


def check_trainings(
    model: nn.Module, data: DataSet, task: Task, recipes: Iterable[Recipe], *, device: str
) -> None:
    """Find what would stop a training before any work.

    Args:
        model: to be trained, or to be cut before.
        data: a batch is never larger than its training part.
        task: whose loss trains.
        recipes: of the trainings; those of no epochs are none.
        device: where.

    Raises:
        UserError: see :func:`coprune.training.check.check_trains`; or a batch that is larger than the memory.
    """
    for recipe in (recipe for recipe in recipes if recipe.epochs):
        sample = next(iter(data.training.batches(1)))
        example = moved(part_of(sample[0], [0]), "cpu")
        check_trains(
            model, task, (example, part_of(sample[1], [0])), recipe, classes=data.classes, device=device
        )
        size = min(recipe.batch_size, len(data.training))
        check_batches(model, example, [size], name="batch_size", device=device)


def check_base(score: Score, *, force: bool) -> list[Note]:
    """Refuse a model that answers no better than one class for everything would: what it loses means nothing.

    Args:
        score: of the unpruned model on held-out samples.
        force: go on, with a note.

    Raises:
        UserError: it is no surer than that.
    """
    if score.beats_constant:
        return []
    text = (
        f"the unpruned model is right on {score.value:.2%} of {score.samples:,} held-out samples, and always "
        f"answering the commonest class on {score.constant:.2%}: what it loses means nothing"
        if score.constant is not None
        else f"the unpruned model's {score.metric.name} is {score.value:.3g} on {score.samples:,} held-out "
        "samples, no better than always answering the mean: what it loses means nothing"
    )
    if not force:
        raise UserError(
            f"{text}; train it, check its weights, labels and normalisation, or go on with {setting('force')}"
        )
    return [Note(Code.NO_BETTER_THAN_CHANCE, text)]


def check_calibration(source: Source, *, force: bool = False) -> list[Note]:
    """Refuse samples that are all alike, on which batch norms and least squares learn nothing; note few ones.

    Args:
        source: calibration samples.
        force: go on, with a note.

    Raises:
        UserError: all of them are the same or constant, or differ by next to nothing.
    """
    parts = spread_batches(source, _SAMPLED, batch_size=_SAMPLED)
    samples = [part_of(part, [i]) for part in parts for i in range(samples_in(part))]
    contents = ([t.double().numpy().tobytes() for t in tensors_of(sample)] for sample in samples)
    distinct, seen = len({hash(b"".join(content)) for content in contents}), len(samples)
    images = parts[0] if len(parts) == 1 and isinstance(parts[0], Tensor) and parts[0].ndim > 3 else None
    blank = seen > 1 and images is not None and _indistinct(images.float().flatten(1))
    if blank or distinct == 1 < seen:
        text = f"calibration samples: all {len(source):,} are alike or without content"
        if not force:
            raise UserError(f"{text}; give samples such as the model meets, or go on with {setting('force')}")
        return [Note(Code.ALIKE_SAMPLES, f"{text}: what was decided on them holds for no others")]
    if len(source) < FEW:
        text = f"{len(source)} calibration samples are few; {FEW} or more make statistics and recovery surer"
        return [Note(Code.FEW_SAMPLES, text)]
    if distinct < max(FEW, seen / 2):
        text = f"of {seen} calibration samples {distinct} differ; the others are copies of them"
        return [Note(Code.FEW_SAMPLES, text)]
    return []


def few_rows(choices: Choices, samples: int) -> list[Note]:
    """What is decided on too few rows, and how many samples would be enough.

    Args:
        choices: of a method; only those that know what their consumers read are looked at.
        samples: calibration samples.
    """
    each = choices if isinstance(choices, Sequence) else ()
    known = (consumer for choice in each if isinstance(choice, Curved) for consumer in choice.consumers)
    few = {consumer.layer: consumer for consumer in known if consumer.fits_anything}
    if not few:
        return []
    worst = max(few.values(), key=lambda c: c.weight.shape[1] / c.rows)
    columns = worst.weight.shape[1]
    return [
        Note(
            Code.FEW_SAMPLES,
            f"layers that read no more places of the {samples:,} calibration samples than they have inputs: "
            f"{len(few)} ({worst.layer}: {worst.rows:,} for {columns:,}); "
            f"{math.ceil(samples * columns / worst.rows):,} samples or more make what is decided there surer",
        )
    ]


def _indistinct(images: Tensor) -> bool:
    """Whether images ``[N, P]`` hardly differ, or have no content: against how much all pixels differ."""
    whole = images.var()
    return bool(images.var(0).mean() <= _ALIKE * whole) or bool(images.var(1).mean() <= _ALIKE * whole)
