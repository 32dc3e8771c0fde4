"""Weights of any usual kind are read by what is in the file, whatever it is called."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import tiny
from coprune.errors import UserError
from coprune.store.checkpoints import match_weights, read_checkpoint


def net() -> nn.Module:
    return tiny.randomise(tiny.Flattened())


def read(path: Path, model: nn.Module) -> dict:
    return match_weights(read_checkpoint(path), model, where=path.name)


def named(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def inside(state: dict) -> dict:
    """One layer was wrapped."""
    return {n.replace("conv2.", "conv2._orig_mod.module."): t for n, t in state.items()}


ADAM = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.rand(4)}}, "param_groups": [{"lr": 0.1}]}
WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best": torch.tensor(0.3), "optimizer": ADAM},
    "model": lambda s: {"model": s, "optimizer": ADAM, "args": {"lr": 0.1}},
    "model_state_dict": lambda s: {"optimizer_state_dict": ADAM, "model_state_dict": s},
    "deeper": lambda s: {"state": {"net": {"weights": s}}},
    "average": lambda s: {"ema": named("module.", s), "updates": 3},
    "average and model": lambda s: {"ema": {n: t * 0 for n, t in s.items()}, "model": s},
    "data parallel": lambda s: named("module.", s),
    "compiled": lambda s: named("_orig_mod.", s),
    "both": lambda s: {"model": named("module._orig_mod.", s)},
    "a layer": inside,
    "lightning": lambda s: {
        "state_dict": {**named("net.", s), "criterion.weight": torch.rand(3)},
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [ADAM],
    },
    "lightning, compiled": lambda s: {"state_dict": named("model._orig_mod.", s)},
    "backbone": lambda s: named("encoder.backbone.", s),
    "averaged model": lambda s: {"n_averaged": torch.tensor(3), **named("module.", s)},
    "old": lambda s: {n: t for n, t in s.items() if "num_batches" not in n},
    "parameters": lambda s: {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()},
    "double": lambda s: {n: t.double() if t.is_floating_point() else t for n, t in s.items()},
}


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("name", list(WRAPPINGS))
def test_read_whatever_it_is_wrapped_in(name, form, tmp_path):
    model = net()
    content = WRAPPINGS[name](model.state_dict())
    path = tmp_path / ("weights.bin" if form == "safetensors" else "weights.pth.tar")
    if form == "safetensors":
        if not all(isinstance(t, torch.Tensor) for t in content.values()):
            pytest.skip("safetensors holds tensors only")
        save_file({n: t.detach().clone() for n, t in content.items()}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    found = read(path, model)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[n].to(t.dtype), t) for n, t in model.state_dict().items())


def test_a_model_that_is_wrapped_reads_plain_weights(tmp_path):
    plain = net()
    torch.save(plain.state_dict(), tmp_path / "plain.ckpt")
    around = nn.Sequential()
    around.add_module("backbone", plain)
    for model, first in ((around, "backbone."), (nn.DataParallel(plain), "module.")):
        found = read(tmp_path / "plain.ckpt", model)
        assert torch.equal(found[f"{first}conv2.weight"], plain.conv2.weight)


def test_masks_are_multiplied_in(tmp_path):
    model = net()
    prune.l1_unstructured(model.conv2, "weight", 0.5)
    torch.save(named("module.", model.state_dict()), tmp_path / "masked.pt")
    found = read(tmp_path / "masked.pt", net())
    assert torch.equal(found["conv2.weight"], model.conv2.weight)


def test_what_does_not_fit_is_named_with_what_was_taken_off(tmp_path):
    state = named("module.", net().state_dict())
    del state["module.fc2.weight"], state["module.fc2.bias"]
    torch.save({"epoch": 1, "state_dict": state | {"module.head.weight": torch.rand(3)}}, tmp_path / "w.pt")
    with pytest.raises(UserError) as refused:
        read(tmp_path / "w.pt", net())
    assert str(refused.value) == (
        "w.pt: not weights of this Flattened, read from 'state_dict', 'module.' taken off: "
        "2 missing (fc2.bias, fc2.weight); 1 unexpected (head.weight)"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_600_damaged_files_are_one_line_each(legacy, tmp_path):
    path, model, draw = tmp_path / "w.pt", net(), random.Random(0)
    unharmed = 0
    torch.save({"state_dict": model.state_dict()}, path, _use_new_zipfile_serialization=not legacy)
    whole, refused = path.read_bytes(), 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(min(len(content), 1500))
            if draw.random() < 0.6:
                content[at] = draw.randrange(256)
            else:
                del content[at : at + draw.randint(1, 20)]
        path.write_bytes(bytes(content))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path, model)
        except UserError as cause:
            refused += "\n" not in str(cause)
        else:
            unharmed += 1
    assert refused + unharmed == 300
    assert refused > 200
