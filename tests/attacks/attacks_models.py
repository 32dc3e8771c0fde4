"""Rows of bad input: weights files and models."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import torch
from attack import Attack, World
from torch import nn

WEIGHTS = "Weights files"
MODELS = "Models that cannot be pruned, or not as asked"
LOAD = "coprune prune --model base --weights {} --data npz:digits.npz --keep-macs 0.5 --out out"
DAMAGED = "damaged, or neither safetensors nor written by torch.save"
OBJECTS = (
    "coprune: {}: holds Python objects ({}), which are never loaded; if you trust it, open it with "
    "torch.load(…, weights_only=False) and save its state dict alone"
)


def saved(name: str, content: Callable[[nn.Module], Any], *, keep: int | None = None, **how: bool) -> Any:
    """A file of ``torch.save``, cut off behind some bytes."""

    def make(world: World) -> None:
        torch.save(content(world.names["net"]), world.folder / name, **how)
        if keep is not None:
            (world.folder / name).write_bytes((world.folder / name).read_bytes()[:keep])

    return make


def written(name: str, content: bytes) -> Any:
    return lambda world: (world.folder / name).write_bytes(content)


def weights(name: str, line: str, makes: Any = None, shown: str = "") -> Attack:
    given = LOAD.format(name)
    extra = {"makes": makes} if makes else {}
    return Attack(WEIGHTS, given, line, shown=f"--weights {name}, {shown}" if shown else "", **extra)


def changed(net: nn.Module, **change: Any) -> dict[str, Any]:
    """The state dict with the last layer's weight changed."""
    state = net.state_dict()
    return state | {"fc.weight": change["to"](state["fc.weight"])}


class Uncopyable(nn.Sequential):
    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("a client is connected")


class Itself(nn.Sequential):
    def __deepcopy__(self, memo: object) -> Itself:
        return self


class Reading(nn.Module):
    """Convolutions, and what reads them."""

    def __init__(self, reader: nn.Module, read: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.reader, self.fc, self.read = reader, nn.Linear(8, 4), read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.read(self, torch.relu(self.b(torch.relu(self.a(x)))))


def layers() -> list[nn.Module]:
    convolutions = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return [*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]


def hooked() -> nn.Module:
    model = nn.Sequential(*layers())
    known = {"model": model}

    def check(module: nn.Module, *_: object) -> None:
        if module is not known["model"][2]:
            raise RuntimeError("another model")

    model[2].register_forward_hook(check)
    return model


def given(name: str, model: Callable[[], object]) -> Any:
    return lambda world: world.names.update({name: model()})


def pruned(name: str, model: Callable[[], object], line: str, shown: str, asked: str = "") -> Attack:
    call = f"coprune.prune({name}, train=batches, eval=test, keep_macs=0.5, force=True{asked})"
    return Attack(
        MODELS, call, line, makes=given(name, model), shown=f"coprune.prune({name}, …{asked}), {shown}"
    )


ATTACKS: list[Attack] = [
    weights("none.pt", "coprune: none.pt: no such weights file"),
    weights("run", "coprune: run: a folder; give the weights file in it, or the folder as --model"),
    weights(
        "/dev/zero",
        "coprune: /dev/zero: cannot be read (it is a pipe or a device, no weights file); name a file",
    ),
    weights(
        "pipe.pt",
        "coprune: pipe.pt: cannot be read (it is a pipe or a device, no weights file); name a file",
        lambda world: os.mkfifo(world.folder / "pipe.pt"),
        "a FIFO",
    ),
    weights("w.pt", "coprune: w.pt: empty; make it again", written("w.pt", b""), "an empty file"),
    weights(
        "w.bin",
        f"coprune: w.bin: {DAMAGED} (KeyError); make it again",
        written("w.bin", b"hello world, this is no file"),
        "a text",
    ),
    weights(
        "w.pt",
        f"coprune: w.pt: {DAMAGED} (RuntimeError); make it again",
        saved("w.pt", lambda net: net.state_dict(), keep=3000),
        "cut off",
    ),
    weights(
        "w.pth.tar",
        f"coprune: w.pth.tar: {DAMAGED}…; make it again",
        saved("w.pth.tar", lambda net: net.state_dict(), keep=3000, _use_new_zipfile_serialization=False),
        "torch's older format, cut off",
    ),
    weights(
        "w.bin",
        "coprune: w.bin: a pointer of Git LFS; git lfs pull fetches the file itself",
        written("w.bin", b"version https://git-lfs.github.com/spec/v1"),
        "a pointer",
    ),
    weights(
        "index.json",
        "coprune: index.json: a JSON file; give the weights that it describes, or --model hf:DIR",
        written("index.json", b'{"weight_map": {}}'),
    ),
    weights(
        "w.pt",
        "coprune: w.pt: a page of HTML or XML; the download failed",
        written("w.pt", b"<!DOCTYPE html>"),
        "a web page",
    ),
    weights("w.h5", "coprune: w.h5: an HDF5 file, of Keras", written("w.h5", b"\x89HDF\r\n\x1a\n")),
    weights(
        "net.pt",
        OBJECTS.format("net.pt", "coprune.models.small_images.SmallImageResNet"),
        saved("net.pt", lambda net: net),
        "a whole model",
    ),
    weights(
        "last.ckpt",
        OBJECTS.format("last.ckpt", "argparse.Namespace"),
        saved(
            "last.ckpt",
            lambda net: {"state_dict": net.state_dict(), "hyper_parameters": argparse.Namespace(lr=0.1)},
        ),
        "of Lightning, with hyperparameters",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: holds no state dict (name → tensor); save model.state_dict()",
        saved("w.pt", lambda net: dict(enumerate(net.state_dict().values()))),
        "numbers for names",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: holds no state dict (name → tensor); save model.state_dict()",
        saved("w.pt", lambda net: {"shadow_params": [p.data for p in net.parameters()], "decay": 0.99}),
        "a list of tensors",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: 'fc.weight' is quantised; save the float weights",
        saved(
            "w.pt",
            lambda net: changed(net, to=lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        ),
        "quantised",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: 'fc.weight' is sparse or nested; save it dense, with .to_dense()",
        saved("w.pt", lambda net: changed(net, to=lambda t: t.to_sparse())),
        "sparse",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: 'fc.weight' is on the meta device and has no values; load weights before saving",
        saved("w.pt", lambda net: changed(net, to=lambda t: t.to("meta"))),
        "on the meta device",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: 'fc.weight' holds int64 for float32; save the weights as they are used",
        saved("w.pt", lambda net: changed(net, to=lambda t: t.long())),
        "integers",
    ),
    weights(
        "w.ckpt",
        "coprune: w.ckpt: NaN or Inf in 'fc.weight'; the training diverged or the file is bad",
        saved(
            "w.ckpt",
            lambda net: {
                "state_dict": {f"model.{n}": t for n, t in changed(net, to=lambda t: t / 0).items()}
            },
        ),
        "NaN",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: not weights of this SmallImageResNet: fc.weight (1000000, 1000000) for (4, 16)",
        saved("w.pt", lambda net: changed(net, to=lambda t: torch.rand(1).expand(10**6, 10**6))),
        "one number 10¹² times",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: not weights of this SmallImageResNet, read from 'model', 'module.' taken off: "
        "fc.weight (7, 16) for (4, 16)",
        saved(
            "w.pt",
            lambda net: {
                "model": {f"module.{n}": t for n, t in changed(net, to=lambda t: torch.rand(7, 16)).items()}
            },
        ),
        "of other classes",
    ),
    weights(
        "w.pt",
        "coprune: w.pt: not weights of this SmallImageResNet: … missing (…); 2 unexpected (0.bias, 0.weight)",
        saved("w.pt", lambda net: nn.Sequential(nn.Linear(3, 3)).state_dict()),
        "of another network",
    ),
    pruned(
        "script",
        lambda: torch.jit.script(nn.Sequential(*layers())),
        "a TorchScript module cannot be cut; give the nn.Module that it was made of",
        "TorchScript",
    ),
    pruned(
        "lazy",
        lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(4)),
        "this Sequential: '0.weight' has no shape yet (lazy); call the model on one batch first",
        "lazy layers that never ran",
    ),
    pruned(
        "connected",
        lambda: Uncopyable(*layers()),
        "this Uncopyable cannot be copied (TypeError: a client is connected), and the one given must stay as "
        "it is; give one that copy.deepcopy can copy",
        "whose __deepcopy__ raises",
    ),
    pruned(
        "itself",
        lambda: Itself(*layers()),
        "a copy of this Itself has the same '0.weight', so that the one given would change; its __deepcopy__ "
        "must copy parameters",
        "whose __deepcopy__ hands back itself",
    ),
    pruned(
        "hooked",
        hooked,
        "…another model, in the hook 'check' on '2' (…line …); it runs on a copy of the model: remove it, or "
        "let it use the module that it is given",
        "with a hook that knows the model",
    ),
    pruned(
        "fixed",
        lambda: Reading(nn.Identity(), lambda net, x: net.fc(x.mean((2, 3)).view(-1, 8))),
        "nothing in this Reading can be pruned: b: the model does not run when it is cut (RuntimeError: …); "
        "a: first layer, left alone; fc: makes the model's output",
        "whose forward has x.view(-1, 8)",
        asked=", units=('inner',)",
    ),
    pruned(
        "early",
        lambda: Reading(nn.Linear(8, 4), lambda net, x: net.reader(net.a.weight.new_ones(len(x), 8))),
        "nothing in this Reading can be pruned: …",
        "whose output does not depend on its input",
    ),
]
