"""A second device that computes on the CPU, for machines without a GPU: what mixes two devices fails.

A tensor on it is a wrapper around one of the CPU. An operation unwraps its tensors, computes and wraps the
result; one that is given tensors of both devices raises, as on a GPU, but for what is allowed there: copies,
tensors without dimensions, and indices on the CPU for a tensor that is elsewhere. Registering it changes the
process, so tests do it in one of their own (:func:`away`).

The means are PyTorch's for a backend written in Python (``torch.utils.backend_registration``).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
_CPU = torch.device("cpu")
_COPIES = ("aten::copy_", "aten::_copy_from", "aten::_to_copy")
_INDEXED = ("aten::index.", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index")
_registered: list[torch.library.Library] = []


class Elsewhere(torch.Tensor):
    """A tensor of the second device; ``held`` is where its values are."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, *args, **(kwargs or {}))

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, _: torch.Tensor) -> None:
        raise NotImplementedError("a wrapper cannot be given another tensor's values")

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held!r})"


def _computed(func: Any, *args: Any, **kwargs: Any) -> Any:
    name, asked = func.name(), kwargs.get("device")
    away: list[Elsewhere] = []
    here: list[torch.Tensor] = []

    def inner(x: Any) -> Any:
        if isinstance(x, Elsewhere):
            away.append(x)
            return x.held
        if isinstance(x, torch.Tensor) and x.dim():
            here.append(x)
        return _CPU if isinstance(x, torch.device) else x

    if away_from_index := name.startswith(_INDEXED) and isinstance(args[0], Elsewhere):
        values = args[2:] if "put" in name else ()
        if any(isinstance(v, torch.Tensor) and v.dim() and not isinstance(v, Elsewhere) for v in values):
            raise RuntimeError(f"{name}: values on another device than the tensor")
    given, options = tree_map(inner, (args, kwargs))
    if away and here and name not in _COPIES and not away_from_index:
        raise RuntimeError(f"{name}: tensors on two devices")
    if name == "aten::_copy_from":
        return _copied(*args)
    found = func(*given, **options)
    stays = torch.device(asked).type == NAME if asked is not None else bool(away) or not here

    def outer(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        same = [t for t in away if t.held is x] or [t for t in here if t is x]
        return same[0] if same else Elsewhere(x) if stays else x

    return tree_map(outer, found)


def _copied(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """What ``torch.tensor`` and an index that is a list call by themselves."""
    ends = [t.held if isinstance(t, Elsewhere) else t for t in (target, source)]
    ends[0].copy_(ends[1])
    return target


def _made(maker: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``torch.tensor`` and its kin, which are no operation that a backend sees."""

    def making(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        if device is None or torch.device(device).type != NAME:
            return maker(*args, device=device, **kwargs)
        return maker(*args, **kwargs).to(device)

    return making


def _moved(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """``module.to``: a wrapper cannot take a tensor's place, so there are new parameters; tied stay tied."""
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def new(old: torch.Tensor) -> torch.Tensor:
        if id(old) not in found:
            made = old.detach().to(device, dtype if old.is_floating_point() else None)
            if made.device == old.device and made.dtype == old.dtype:
                made = old
            elif isinstance(old, nn.Parameter):
                made = nn.Parameter(made, old.requires_grad)
            found[id(old)] = old, made
        return found[id(old)][1]

    for part in module.modules():
        for held in (part._parameters, part._buffers):
            held.update({name: new(t) for name, t in held.items() if t is not None})
    return module


class Module(_DummyBackendModule):
    """What ``torch.elsewhere`` is; random numbers are those of the CPU."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


def register() -> None:
    """Let this process have the device, as the one that is picked for every run."""
    torch.inference_mode = torch.no_grad  # a wrapper has no view there
    torch.tensor, torch.as_tensor = _made(torch.tensor), _made(torch.as_tensor)

    from accelerate.state import PartialState

    import coprune.api
    import coprune.pipeline.compare
    import coprune.pipeline.measure
    import coprune.pipeline.pruning
    import coprune.pipeline.recover
    import coprune.pipeline.train
    import few_timings  # noqa: F401

    torch.set_num_threads(1)
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    PartialState.default_device = property(lambda _: torch.device(f"{NAME}:0"))
    nn.Module.to, nn.Module.cpu = _moved, lambda module: _moved(module, "cpu")
    library = torch.library.Library("_", "IMPL")
    library.fallback(_computed, "PrivateUse1")
    copies = torch.library.Library("aten", "IMPL")
    copies.impl("_copy_from", _copied, "PrivateUse1")
    _registered.extend((library, copies))
    run = coprune.pipeline
    for module in (coprune.api, coprune.pipeline.compare, run.measure, run.pruning, run.recover, run.train):
        module.pick_device = lambda asked: "cpu" if asked == "cpu" else NAME


def away() -> ProcessPoolExecutor:
    """A process that has the device and does what it is given."""
    # Not forked: there everything has been imported, with another inference mode.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=register)
