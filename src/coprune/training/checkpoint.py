"""A training's state on disk: safetensors with the counters in its metadata, one atomic file.

Holds the model, the optimizer's momentum, the scale of fp16's gradients and how many steps were done.
Nothing else is needed: batches and augmentation are pure functions of seed, epoch and step
(:mod:`coprune.data.source`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from coprune.errors import UserError
from coprune.files import dispensable
from coprune.models.copies import put_state
from coprune.store.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Where a training writes its state.

    Attributes:
        path: the file; it is removed by whoever owns the run once the run is whole.
    """

    path: Path

    def save(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        step: int,
        sums: Mapping[int, list[float]],
        scaler: GradScaler | None = None,
    ) -> None:
        """Write model, momentum, the number of steps done, the log's sums of each epoch, and fp16's scale."""
        tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
        scale = {} if scaler is None else scaler.state_dict()
        metadata = {"step": str(step), "sums": json.dumps(sums), "scaler": json.dumps(scale)}
        # A disk that cannot hold it must not end the training, which needs less at its end.
        with dispensable("this checkpoint"):
            write_tensors(self.path, tensors, metadata=metadata)

    def restore(
        self, model: nn.Module, optimizer: Optimizer, *, scaler: GradScaler | None = None
    ) -> tuple[int, dict[int, list[float]]]:
        """Load a saved state, in place.

        Args:
            model: trained in the saved state.
            optimizer: of its parameters.
            scaler: of gradients in fp16, where there is one.

        Returns:
            The steps done and the log's sums; 0 and nothing when there is no file.

        Raises:
            UserError: not a checkpoint, or one of another network.
        """
        if not self.path.is_file():
            return 0, {}
        tensors = read_tensors(self.path, what="checkpoint")
        with safe_open(self.path, framework="pt") as file:
            metadata = file.metadata() or {}
        try:
            step = int(metadata["step"])
            sums = {int(epoch): entry for epoch, entry in json.loads(metadata["sums"]).items()}
            scale = json.loads(metadata.get("scaler", "{}"))
        except (KeyError, ValueError) as cause:
            raise UserError(f"{self.path}: not a checkpoint of coprune; remove it") from cause
        prefix = "model."
        saved = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in model.state_dict().items()}:
            raise UserError(f"{self.path}: checkpoint of another network; use --overwrite to start anew")
        put_state(model, saved)
        if scaler is not None and scale:
            scaler.load_state_dict(scale)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = value
        whole = optimizer.state_dict()
        optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
        return step, sums
