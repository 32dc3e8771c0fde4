"""All figures of a model after one step, as the run folder's contract names them."""

from __future__ import annotations

from torch import nn

from coprune.measure.accuracy import Score
from coprune.measure.macs import count_macs, count_params
from coprune.measure.memory import peak_memory
from coprune.result import Stage, StageName
from coprune.store.tensors import tensor_file_size
from coprune.tracing.forward import Inputs


def stage_of(
    name: StageName, model: nn.Module, score: Score, example: Inputs, *, calibration: float | None = None
) -> Stage:
    """Size of a model beside the accuracy that was measured; the model goes to the CPU.

    Args:
        name: of the stage.
        model: to measure.
        score: held-out.
        example: one sample ``[1, …]``.
        calibration: accuracy on calibration samples, where it was measured.
    """
    model.cpu()
    return Stage(
        name=name,
        value=score.top1,
        samples=score.samples,
        interval=score.interval,
        calibration=calibration,
        macs=count_macs(model, example),
        params=count_params(model),
        bytes=tensor_file_size(model.state_dict()),
        peak_memory=peak_memory(model, example),
    )
