"""A training's state on disk: safetensors with the counters in its metadata, one atomic file.

Holds the model, the optimizer's momentum and how many steps were done. Nothing else is needed:
batches and augmentation are pure functions of seed, epoch and step (:mod:`coprune.data.source`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from coprune.store.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Where a training writes its state.

    Attributes:
        path: the file; it is removed by whoever owns the run once the run is whole.
    """

    path: Path

    def save(self, model: nn.Module, optimizer: Optimizer, *, step: int) -> None:
        """Write model, momentum and the number of steps done."""
        tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
        write_tensors(self.path, tensors, metadata={"step": str(step)})

    def restore(self, model: nn.Module, optimizer: Optimizer) -> int:
        """Load a saved state, in place. Returns the steps done, 0 when there is no file."""
        if not self.path.is_file():
            return 0
        tensors = read_tensors(self.path, what="checkpoint")
        with safe_open(self.path, framework="pt") as file:
            step = int(file.metadata()["step"])
        prefix = "model."
        model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value.to(torch.float32)
        whole = optimizer.state_dict()
        optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        return step
