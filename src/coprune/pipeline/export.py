"""``coprune export``: the model of a run as ONNX or as a ``torch.export`` program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coprune.data.subsample import spread
from coprune.errors import UserError, setting
from coprune.export import FORMATS, check_against, samples_of_sizes, traced_program
from coprune.export.check import SIZES
from coprune.export.program import LOGITS, OUTPUT
from coprune.files import check_replaceable, write_bytes
from coprune.folders import check_idle
from coprune.memory import check_shape
from coprune.pipeline.opening import open_data
from coprune.store import load
from coprune.store.model import describe
from coprune.tracing.forward import READS, WHOLE, Inputs, check_takes, part_of, samples_in

_SAMPLES = 8
_NO_LOGITS = ("regression", "reconstruction", "feature-extraction", "detection", "outputs")


def random_inputs(
    reads: Mapping[str, Sequence[int]], model: nn.Module, whole: Mapping[str, int] | None = None
) -> Inputs:
    """Noise of the shapes that a note states, eight samples.

    Args:
        reads: see :func:`coprune.tracing.forward.shapes_of`; texts are of different lengths, arguments
            without names are numbered.
        model: says how many tokens it knows.
        whole: which of them are whole numbers, and the highest; older models do not say.
    """
    generator, whole = torch.Generator().manual_seed(0), whole or {}
    config: Any = getattr(model, "config", None)
    words = int(getattr(config, "vocab_size", 2) or 2)

    def noise(name: str, shape: Sequence[int]) -> Tensor:
        if name in whole:
            return torch.randint(0, whole[name] + 1, (_SAMPLES, *shape), generator=generator)
        return torch.randn(_SAMPLES, *shape, generator=generator)

    def tokens(name: str, width: int) -> Tensor:
        # From the longest to half of it, as a batch of texts is padded.
        lengths = torch.linspace(width, max(1, width // 2), _SAMPLES).round().long()
        inside = (torch.arange(width) < lengths.unsqueeze(1)).long()
        most = words if name.endswith("input_ids") else 1
        drawn = torch.randint(0, most, inside.shape, generator=generator)
        return inside if name.endswith("attention_mask") else drawn * inside

    text = any(name.endswith("input_ids") for name in reads)
    found = {
        n: tokens(n, *shape) if text and len(shape) == 1 else noise(n, shape) for n, shape in reads.items()
    }
    if set(found) == {""}:
        return found[""]
    return tuple(found.values()) if all(map(str.isdigit, found)) else found


def inputs_for(run: Path, model: nn.Module, *, data: str | None, shape: Sequence[int]) -> tuple[Inputs, str]:
    """A few samples that a model reads, and where they are from, in words.

    Args:
        run: the model's folder.
        model: the model.
        data: a data name; that of the run when not given, if it can still be read.
        shape: of one image, where there is no data; noise is drawn.

    Raises:
        UserError: data that was asked for and cannot be read, or nothing known of the inputs.
    """
    notes = describe(run).notes
    if shape and data:
        raise UserError(f"give {setting('data')} or {setting('input_shape')}, not both")
    if shape:
        check_shape(shape, samples=_SAMPLES)
        return random_inputs({"": shape}, model), "noise"
    name = data or notes.get("data")
    why = "the run names no data"
    if isinstance(name, str) and name != "loaders":
        try:
            opened = open_data(name, model=str(run))
            return spread(opened.heldout, _SAMPLES), f"held-out samples of {name}"
        except UserError as cause:
            if data:
                raise
            why = str(cause)
    if isinstance(notes.get(READS), dict):
        return random_inputs(notes[READS], model, notes.get(WHOLE)), f"noise; {why}"
    raise UserError(f"{run}: what does this model read? {why}; give --data or --input-shape")


def export_run(
    run: Path,
    *,
    targets: Mapping[str, Path],
    data: str | None = None,
    shape: Sequence[int] = (),
    trust: bool = False,
) -> Iterator[str]:
    """Write the model of a run in other formats; lines for the terminal.

    Every file is checked before it appears: run on several batch sizes, its outputs compared.

    Args:
        run: a run folder.
        targets: format (a key of :data:`coprune.export.FORMATS`) → file.
        data, shape: see :func:`inputs_for`.
        trust: run the ``python:`` factory that the folder names.

    Raises:
        UserError: a model that cannot be exported, a missing extra, a difference, or no free disk.
    """
    check_idle(run)
    for kind, target in targets.items():
        check_replaceable(target)
        suffix = FORMATS[kind].suffix
        if target.exists() and target.suffix != suffix:
            raise UserError(f"{target}: is there, and no {suffix} file; choose another --out")
    model = load(run, trust=trust)
    inputs, origin = inputs_for(run, model, data=data, shape=shape)
    check_takes(model, inputs)
    alone = OUTPUT if describe(run).notes.get("task") in _NO_LOGITS else LOGITS
    two = part_of(inputs, [0, 1 % samples_in(inputs)])  # as a tracer needs them
    traced = traced_program(model, two, alone=alone)
    batches = samples_of_sizes(inputs)
    for kind, target in targets.items():
        made = FORMATS[kind]
        content = made.content(traced)
        worst = check_against(model, made.runner(content), batches, reader=made.reader)
        write_bytes(target, content)
        sizes = ", ".join(map(str, SIZES))
        yield (
            f"{target}: {len(content) / 1e6:.2f} MB, inputs {', '.join(traced.reads)}, "
            f"outputs {', '.join(traced.hands_back)}; "
            f"{made.reader} agrees with PyTorch to {worst:.0e} on {sizes} samples ({origin})"
        )
