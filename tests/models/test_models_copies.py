"""A copy of a user's model is one of its own, without what was only around it; the user's stays as it is."""

from __future__ import annotations

import copy
import threading
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

import coprune
from coprune.errors import UserError
from coprune.models.canonicalize import canonical_copy
from coprune.models.copies import copied, unwrapped
from coprune.tracing.forward import check_takes


class Net(nn.Module):
    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 8, 3, padding=1) for i in (1, 8, 8))
        self.n = nn.ModuleList(norm(8) for _ in range(3))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for layer, norm in zip((self.a, self.b, self.c), self.n, strict=True):
            x = torch.relu(norm(layer(x)))
        return self.fc(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def no_latency(monkeypatch):
    monkeypatch.setattr(import_module("coprune.pipeline.context"), "measure_latency", lambda *_, **__: ())


def batches() -> list:
    labels = torch.arange(64) % 3
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + labels.view(-1, 1, 1, 1)
    return list(zip(images.split(16), labels.split(16), strict=True))


def pruned(model: nn.Module, **options):
    return coprune.prune(model, train=batches(), eval=batches(), keep_macs=0.7, force=True, **options)


def inner(net: nn.Module, wrap) -> nn.Module:
    net.b = wrap(net.b)
    return net


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="eager")
    net.b.compile(backend="eager")
    return net


def checkpointed(module: nn.Module) -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    return checkpoint_wrapper(module)


WRAPS = {
    "data parallel": nn.DataParallel,
    "compiled": compiled,
    "compiled in place": in_place,
    "both": lambda net: compiled(nn.DataParallel(net)),
    "the other way round": lambda net: nn.DataParallel(compiled(net)),
    "a layer, data parallel": lambda net: inner(net, nn.DataParallel),
    "a layer, compiled": lambda net: inner(net, compiled),
    "a layer, twice": lambda net: inner(net, lambda layer: compiled(nn.DataParallel(layer))),
    "checkpointed": checkpointed,
    "a layer, checkpointed": lambda net: inner(net, checkpointed),
}


@pytest.mark.parametrize("name", list(WRAPS))
def test_wrappers_are_taken_off_at_all_depths(name):
    net = Net().eval()
    plain, x = copy.deepcopy(net), torch.rand(4, 1, 8, 8)
    wrapped = WRAPS[name](net)
    inside = wrapped.b if name.startswith("a layer") else None
    made = canonical_copy(wrapped)
    assert made.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in made.modules()] == [type(m) for m in plain.modules()]
    assert torch.equal(made(x), plain(x))
    assert inside is None or wrapped.b is inside  # the user's is as it was


def test_ddp_is_taken_off():
    from torch.distributed import HashStore, destroy_process_group, init_process_group

    init_process_group("gloo", rank=0, world_size=1, store=HashStore())
    try:
        net, net2 = Net(), Net()
        whole, part = (
            nn.parallel.DistributedDataParallel(net),
            inner(net2, nn.parallel.DistributedDataParallel),
        )
        assert unwrapped(whole) is net
        assert [type(m) for m in copied(whole).modules()] == [type(m) for m in net.modules()]
        assert [type(m) for m in copied(part).modules()] == [type(m) for m in net.modules()]
    finally:
        destroy_process_group()


def test_a_wrapped_model_is_pruned_like_the_plain_one():
    net = Net()
    around = nn.DataParallel(inner(copy.deepcopy(net), compiled))
    plain, wrapped = (pruned(model, finetune_epochs=1) for model in (net, around))
    assert [(g.name, g.kept) for g in plain.plan.groups] == [(g.name, g.kept) for g in wrapped.plan.groups]
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(plain.model(x), wrapped.model(x))


MASKS = {
    "weight": lambda net: prune.l1_unstructured(net.b, "weight", 0.5),
    "bias": lambda net: prune.random_unstructured(net.fc, "bias", 0.4),
    "twice": lambda net: [prune.l1_unstructured(net.b, "weight", 0.3) for _ in range(2)],
    "structured": lambda net: prune.ln_structured(net.c, "weight", 0.25, n=2, dim=0),
    "batch norm": lambda net: prune.l1_unstructured(net.n[1], "weight", 0.3),
    "by hand": lambda net: prune.custom_from_mask(net.b, "weight", torch.ones(8, 8, 3, 3).triu()),
    "global": lambda net: prune.global_unstructured(
        [(net.a, "weight"), (net.b, "weight"), (net.fc, "weight")], prune.L1Unstructured, amount=0.4
    ),
    "beside weight norm": lambda net: (
        prune.l1_unstructured(net.b, "weight", 0.3),
        parametrizations.weight_norm(net.c),
        torch.nn.utils.weight_norm(net.fc),
    ),
}


@pytest.mark.parametrize("name", list(MASKS))
def test_masks_are_multiplied_in(name):
    net, x = Net().eval(), batches()[0][0]
    MASKS[name](net)
    net(x).sum().backward()  # leaves weights with a graph behind them
    before, said = {k: v.clone() for k, v in net.state_dict().items()}, net(x)
    made = canonical_copy(net)
    assert made.state_dict().keys() == Net().state_dict().keys()
    assert torch.equal(made(x), said)
    assert {k for k in before if k.endswith("_mask")} or name == "beside weight norm"
    outcome = pruned(net)
    assert {g.name for g in outcome.plan.groups} == {"b", "c"}
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net(x), said)


def test_zeros_of_a_mask_are_weights_like_others():
    net = Net()
    prune.l1_unstructured(net.b, "weight", 0.5)
    made = canonical_copy(net)
    assert float((made.b.weight == 0).float().mean()) == 0.5
    assert isinstance(made.b.weight, nn.Parameter)


def test_hooks_and_patched_forwards_know_the_copy():
    # Once: what a closure knew was the original, so its weights were computed with, or its assertion failed.
    net, seen = Net(), []
    plain = net.forward

    def asks(module, _, output):
        assert module is net.b
        seen.append(output.shape)
        return output + net.fc.bias.sum()

    net.b.register_forward_hook(asks)
    net.forward = lambda x: plain(x * 1.0)
    layer = net.c
    net.c.forward = lambda x: F.conv2d(x, layer.weight, layer.bias, padding=1)
    x = batches()[0][0]
    net.eval()
    said = net(x)
    made = copied(net)
    for twin in (made, copied(made)):
        assert torch.equal(twin(x), said)
        with torch.no_grad():
            twin.fc.bias.add_(1.0)
            twin.c.weight.zero_()
        assert not torch.equal(twin(x), said)
    assert torch.equal(net(x), said)
    hooks = dict(net.b._forward_hooks)
    outcome = pruned(net)
    assert {g.name for g in outcome.plan.groups} == {"b", "c"}
    assert net.b._forward_hooks == hooks
    assert torch.equal(net(x), said)


def test_a_hook_that_fails_is_named():
    net = Net()
    alone = {"net": net}

    def asks(module, *_):
        assert module is alone["net"].b

    net.b.register_forward_pre_hook(asks)
    with pytest.raises(UserError, match=r"in the hook 'asks' on 'b' \(.*test_models_copies.py, line"):
        check_takes(canonical_copy(net), torch.rand(1, 1, 8, 8))


class Slotted(Net):
    __slots__ = ("scale",)

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor(3.0)

    def forward(self, x):
        return super().forward(x) * self.scale


class Locked(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lock, self.stream = threading.Lock(), (i for i in range(3))

    def forward(self, x):
        with self.lock:
            return super().forward(x)


@pytest.mark.parametrize("kind", [Slotted, Locked])
def test_slots_are_copied_and_what_cannot_be_is_shared(kind):
    net, x = kind().eval(), torch.rand(2, 1, 8, 8)
    made = copied(net)
    assert torch.equal(made(x), net(x))
    if kind is Locked:
        assert made.stream is net.stream
        # Once: with one lock for the model and its teacher, each waited for the other.
        assert made.lock is not net.lock
    assert made.b.weight is not net.b.weight
    assert pruned(net).result.stages[-1].macs < pruned(Net()).result.stages[0].macs


class Refusing(Net):
    def __deepcopy__(self, memo):
        raise TypeError("not me")


class Selfish(Net):
    def __deepcopy__(self, memo):
        return self


def test_a_model_with_its_own_way_of_copying():
    with pytest.raises(UserError, match=r"this Refusing cannot be copied \(TypeError: not me\)"):
        pruned(Refusing())
    with pytest.raises(UserError, match=r"a copy of this Selfish has the same 'a.weight'"):
        pruned(Selfish())


def test_a_lazy_model_is_told_to_run_once():
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(UserError, match=r"'0.weight' has no shape yet"):
        pruned(lazy)
