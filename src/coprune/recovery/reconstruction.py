"""All layers together, until the pruned network's outputs match the unpruned one's. Reads no label.

Solved one after the other (:mod:`coprune.recovery.sequential_least_squares`), every layer matches as
well as it can what the unpruned one puts out *at that place*: a block's first
layer repeats the channels that were kept. Other features
may serve the layer behind it better, and no layer finds them alone. So from there on all weights move
together, down the error of the blocks' outputs and of the prediction against the unpruned network's
(:mod:`coprune.training.distill`), on the calibration samples and nothing else. Block reconstruction is known
from quantisation (BRECQ, Li et al. 2021, arXiv 2102.05426, §3.2); here it starts from least squares and goes
through all blocks at once.

It is descent, and so takes longer than least squares, but there is nothing to tune: it reads no labels and no
samples beyond the calibration set's, and what does not get better on samples it did not see is taken back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune.data import MemorySource, Source, TextSource, TreeSource, in_memory, split_source, spread_batches
from coprune.distributed.collectives import on_first
from coprune.models.copies import copied_state, put_state
from coprune.progress import remark
from coprune.recovery.base import Pair, Reconstruction, Recovered
from coprune.recovery.sequential_least_squares import least_squares
from coprune.tracing.forward import Inputs, are_photographs, copied, moved, samples_in
from coprune.tracing.modes import gradients
from coprune.training.distill import Teacher, matched_blocks
from coprune.training.known_outputs import KnownOutputs, known_outputs
from coprune.training.loop import DivergedError, TooSmallError, fit
from coprune.training.recipe import Recipe

VISITS = 20_000
"""Samples that pass in all, however many different ones there are: twenty times a thousand."""

TOKENS = 50_000
"""The same where every token has an output of its own, in tokens: five passes of a hundred short texts.
SmolLM2's divergence on texts that neither calibrate nor judge fell from .233 to .231 in three passes, .223 in
six."""

SAMPLES = 10_000
"""Different ones, at most."""

PASSES = 5
"""At least over these, so that each is seen often enough. MiniLM at half of its MACs: 1 − cos on held-back
texts fell from .065 to .050 in five passes of 2,000 texts, from .066 to .036 in six of 8,000."""

JUDGING = 1 / 8
"""Share of the samples that is not learned from and decides whether it helped."""

MOST = 500
"""Of them, at most: whether it helped is plain by then."""

RECIPE = Recipe(epochs=1, batch_size=64, lr=0.03, unit_clip=0.2, weight_decay=0.0, distill=1.0, match=30.0)
"""Soft labels and hidden outputs only. Chosen on training images that were not calibrated on: rates from
0.02 to 0.1 end within a few per cent of the divergence of each other (docs/complementary.md)."""

WITHOUT_BATCH_NORM = RECIPE.model_copy(
    update={"optimizer": "adamw", "lr": 5e-4, "unit_clip": 0.0, "clip": 1.0, "warmup": 0.1}
)
"""What a network without batch norms is moved by: behind layer norms one rate for all layers, as SGD has it,
made a vision transformer worse, and Adam's steps made it better."""

OF_TEXTS = WITHOUT_BATCH_NORM.model_copy(update={"batch_size": 16, "lr": 3e-4})
"""Where texts have one output each. MiniLM at half of its MACs, 6 passes of 7,000 texts: 1 − cos on others
fell to .034 so, and to .036 in batches of 64 at 5e-4; in 12 passes of 8,900 to .031."""

OF_TOKENS = WITHOUT_BATCH_NORM.model_copy(update={"batch_size": 8, "lr": 1e-4, "match": 0.0})
"""Where every token has an output of its own: a text is as good as many samples, and its hidden outputs are
ruled by the few tokens that attention rests on. Twice the rate made SmolLM2 worse on the calibration texts
that judge; with 1 − cos of the stream behind every block beside it, it came as far."""

OFTEN = 8
"""Passes from which on half of the texts are recombined with others (:class:`~coprune.data.text.TextSource`):
learned by heart they teach nothing more. MiniLM, 1,000 texts: after six of eight passes 1 − cos was .0551
and .018 on those that it saw; so .0544 and .031."""

PHOTOGRAPHS = 2_400
"""The same of images of more than 128 × 128 pixels, each of which costs a hundred times as much."""

OF_PHOTOGRAPHS = WITHOUT_BATCH_NORM.model_copy(update={"batch_size": 32, "lr": 1e-4})
"""With batch norms that keep their statistics. EfficientNet-Lite0 at 70 % of its MACs, 437 images: the
divergence on others fell from .201 to .172, with statistics of each batch and SGD to .197, with them and Adam
it rose. With small images it is the other way round: ResNet-20 at 26 %, .0233 so and .0212 by batches."""

STEP = 2.0
"""What a sample costs in training, in passes of both networks; for the time that is said beforehand."""

MEMORY = 1 << 30
"""Bytes that the unpruned model's outputs may take; where they would take more it runs in every pass."""

_BATCH = 125


def recover(pair: Pair, source: Source, *, seed: int = 0) -> Recovered:
    """Least squares, and then all layers together where that helps."""
    weights = copied_state(pair.model)
    # Samples that least squares has solved on would judge in its favour.
    learning, judging = held_back(source, seed=seed)
    layers = least_squares(pair, learning, seed=seed)
    together = reconstruct(pair, learning, judging=judging, seed=seed)
    if not together.changed:
        put_state(pair.model, weights)
        layers = least_squares(pair, source, seed=seed)
    changed = any(layer.changed for layer in layers) or together.changed
    return Recovered(True, changed, layers, together)


def reconstruct(
    pair: Pair,
    source: Source,
    *,
    judging: MemorySource | None = None,
    seed: int = 0,
    visits: int | None = None,
) -> Reconstruction:
    """Move all weights of a pruned model until its hidden outputs and predictions match, in place.

    Args:
        pair: its model, best right after least squares, is left in evaluation mode.
        source: calibration samples; labels are not read. Up to 10,000, evenly spread, are taken.
        judging: samples that neither this nor least squares has learned from; without them some of the
            source's, see :func:`held_back`.
        seed: which samples judge, and the order of the others.
        visits: samples that pass in all, :data:`VISITS`, of large images :data:`PHOTOGRAPHS`; tokens,
            :data:`TOKENS`, where each has an output.
    """
    if judging is None:
        learning, judging = held_back(source, seed=seed)
    else:
        learning = _unlabelled(source)
    model, teacher = pair.ready()
    normed = any(isinstance(m, _BatchNorm) for m in model.modules())
    first, _ = next(iter(judging.batches(1)))
    large = are_photographs(first)
    tokens = None if normed or large else _tokens(pair, first)
    recipe = _recipe(first, normed=normed, tokens=tokens is not None)
    # A pass of long texts takes as much memory as a training step's, of images much less.
    size = _BATCH if tokens is None and isinstance(first, Tensor) and not large else recipe.batch_size
    batches = [moved(inputs, pair.device) for inputs, _ in judging.batches(size)]
    started = time.perf_counter()
    before = mean_divergence(pair, batches)
    each = (time.perf_counter() - started) / len(judging)
    weights = copied_state(model)
    least = 1 if visits or tokens else PASSES
    visits = visits or (TOKENS if tokens else PHOTOGRAPHS if large else VISITS)
    usual = max(least, round(visits / len(learning) / (tokens or 1)))
    passes = max(1, round(pair.effort * usual))
    minutes = STEP * each * passes * len(learning) / 60
    if minutes >= 1:
        remark(f"reconstruction takes about {minutes:.0f} min", about="reconstruction")
    known = None
    if recipe is OF_TEXTS and passes >= OFTEN and isinstance(learning, TextSource):
        learning = replace(learning, recombined=0.5)
    else:
        learning, known = _answered(learning, pair, size=size, hidden=recipe.match > 0)
    try:
        still = [] if tokens is None else _of_words(model)
        with gradients(model.parameters(), True), gradients(still, False):
            fit(
                model,
                learning,
                recipe.model_copy(update={"epochs": passes}),
                seed=seed,
                task=pair.task,
                teacher=Teacher(teacher, pair.kept, known),
                device=pair.device,
                label="reconstruction",
                norms=not large,
            )
        after = mean_divergence(pair, batches)
    except (DivergedError, TooSmallError):
        after = math.nan  # there is no rate that the user could lower: taken back as what did not help
    # Every process has the same model, but devices round differently: one decides for all.
    changed = on_first(lambda: after < before)
    if not changed:
        put_state(model, weights)
    return Reconstruction(before, after if math.isfinite(after) else None, changed, len(learning), passes)


def _recipe(inputs: Inputs, *, normed: bool, tokens: bool) -> Recipe:
    """How weights are moved.

    Args:
        inputs: a sample.
        normed: whether the model has batch norms.
        tokens: whether every token has an output of its own.
    """
    if are_photographs(inputs):
        return OF_PHOTOGRAPHS
    if normed:
        return RECIPE
    if tokens:
        return OF_TOKENS
    return WITHOUT_BATCH_NORM if isinstance(inputs, Tensor) else OF_TEXTS


def _of_words(model: nn.Module) -> list[Tensor]:
    """What has a row for every word of the vocabulary: embeddings, and a language model's output layer.

    Surgery leaves them alone, and few of the words are in the samples. Adam would move the rows of all others
    as far, by nothing but noise.
    """
    words = max((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), default=0)
    return [p for p in model.parameters() if p.ndim == 2 and len(p) == words]


@torch.no_grad()
def _tokens(pair: Pair, inputs: Inputs) -> int | None:
    """How many outputs of its own a text has, one a token; None where it is a sample like any other."""
    if pair.task.divergence.axis != -1:
        return None
    _, teacher = pair.ready()
    first = pair.task.outputs(teacher, copied(moved(inputs, pair.device))).tensors[0]
    return first.shape[1] if first.ndim > 2 else None


def _unlabelled(source: Source) -> MemorySource:
    """Up to :data:`SAMPLES` of them, evenly spread, in memory and without their labels."""
    inputs = spread_batches(source, min(SAMPLES, len(source)), batch_size=_BATCH)
    return in_memory([(x, torch.zeros(samples_in(x), dtype=torch.int64)) for x in inputs], labelled=False)


def held_back(source: Source, *, seed: int) -> tuple[MemorySource, MemorySource]:
    """Samples to learn from and others to judge by, without their labels; of one alone both.

    Args:
        source: calibration samples; up to 10,000, evenly spread, are taken.
        seed: which of them judge.
    """
    unlabelled = _unlabelled(source)
    if len(unlabelled) < 2:
        return unlabelled, unlabelled
    count = max(1, min(MOST, round(JUDGING * len(unlabelled))))
    share = count / len(unlabelled)
    judging, learning = split_source(unlabelled, (share, 1 - share), seed=seed)
    return learning, judging


def _answered(
    learning: MemorySource, pair: Pair, *, size: int, hidden: bool
) -> tuple[MemorySource, KnownOutputs | None]:
    """Numbered samples and the unpruned model's outputs on them; none where they take over :data:`MEMORY`.

    Args:
        learning: the samples.
        pair: whose unpruned model is asked.
        size: samples of a pass.
        hidden: whether hidden outputs are learned from.
    """
    if not isinstance(learning, TextSource | TreeSource):
        return learning, None
    batches = [moved(x, pair.device) for x, _ in learning.batches(size)]
    blocks = matched_blocks(pair.model, pair.teacher, pair.kept) if hidden else ()
    found = known_outputs(pair.teacher, pair.task.outputs, blocks, batches, memory=MEMORY)
    return (learning, None) if found is None else (learning.numbered(), found)


@torch.no_grad()
def mean_divergence(pair: Pair, batches: Iterable[Inputs]) -> float:
    """Mean divergence of the pruned network's outputs from the unpruned one's, batch by batch.

    Args:
        pair: the two.
        batches: inputs on their device.
    """
    model, teacher = pair.ready()
    total, count = 0.0, 0
    for batch in batches:
        found, wanted = (pair.task.outputs(network, copied(batch)) for network in (model, teacher))
        total += float(pair.task.divergence.distance(found, wanted, whole=True).sum())
        count += samples_in(batch)
    return total / count
