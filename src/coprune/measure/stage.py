"""All figures of a model after one step, as the run folder's contract names them."""

from __future__ import annotations

from torch import nn

from coprune.data import DataSet
from coprune.forward import Inputs
from coprune.measure.accuracy import evaluate
from coprune.measure.macs import count_macs, count_params
from coprune.measure.memory import peak_memory
from coprune.result import Stage, StageName
from coprune.store.tensors import tensor_file_size


def measure_stage(
    name: StageName,
    model: nn.Module,
    data: DataSet,
    example: Inputs,
    *,
    device: str = "cpu",
) -> Stage:
    """Held-out accuracy and size of a model.

    Args:
        name: of the stage.
        model: to measure.
        data: its held-out part gives the value; the calibration figure stands beside it.
        example: one sample ``[1, …]``.
        device: where accuracy is computed.
    """
    score = evaluate(model, data.heldout, device=device, label=f"accuracy, {name}")
    calibration = evaluate(model, data.calibration, device=device, label=f"calibration, {name}")
    model.cpu()
    return Stage(
        name=name,
        value=score.top1,
        calibration=calibration.top1,
        macs=count_macs(model, example),
        params=count_params(model),
        bytes=tensor_file_size(model.state_dict()),
        peak_memory=peak_memory(model, example),
    )
