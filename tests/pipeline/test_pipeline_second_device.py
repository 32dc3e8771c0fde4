"""Nothing mixes a GPU's tensors with the CPU's: whole runs on a device that is simulated, in its own process.

What they choose and what comes out is what the CPU gives.
"""

from __future__ import annotations

import copy
import gc
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import coprune
import tiny
import tiny_coupled
import tiny_transformers as zoo
from coprune.data import in_memory
from coprune.recovery import Pair, kept_outputs, reconstruct
from coprune.tracing.forward import logits_of, part_of
from coprune.training import Recipe, fit

# Its means are new in PyTorch and may change.
second_device = pytest.importorskip("second_device", exc_type=ImportError)

IMAGES: dict[str, dict[str, Any]] = {
    "complementary": {"finetune_epochs": 1},
    "cosep": {},
    "cosep, sketched": {"pairs": "sketch"},
    "cosep, in a plane": {"space": "tsne"},
    "magnitude": {},
    "bn_scale": {},
    "fpgm": {"recovery": "bn"},
    "lamp": {"recovery": "channel-least-squares"},
    "taylor": {},
    "hessian": {},
    "random": {},
}
HEADS = (
    "complementary",
    "cahp",
    "michel",
    "medoid",
    "last_layers",
    "head_magnitude",
    "random",
    "magnitude",
    "taylor",
)
FAMILIES = ("bert", "albert", "deberta_v3", "vit", "swin", "llama_grouped", "timm", "torchvision", "encoder")


class Loader(list):
    dataset = range(48)


class Ran(NamedTuple):
    kept: dict[str, tuple[int, ...]]
    logits: torch.Tensor
    device: str
    stages: list[str]


def images(n: int = 96, size: int = 32) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    x = torch.rand(n, 1, 12, 12, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(x, labels), batch_size=size)


def samples(name: str) -> Loader:
    whole = zoo.inputs(name, samples=48, dtype=torch.float32)
    labels = torch.arange(48) % zoo.CLASSES
    return Loader((part_of(whole, slice(i, i + 16)), labels[i : i + 16]) for i in range(0, 48, 16))


def both(model: torch.nn.Module, read: Any, **asked: Any) -> list[Ran]:
    """On the CPU and on the device."""
    found = []
    for device in ("cpu", "auto"):
        outcome = tiny.prune(
            copy.deepcopy(model), train=read, eval=read, calibration=read, device=device, **asked
        )
        found.append(
            Ran(
                {g.name: g.kept for g in outcome.plan.groups},
                logits_of(outcome.model, next(iter(read))[0]).detach(),
                str(next(outcome.model.parameters()).device),
                [stage.name for stage in outcome.result.stages],
            )
        )
    return found


def small() -> torch.nn.Module:
    return tiny.randomise(tiny.resnet8(3))


def network(**asked: Any) -> list[Ran]:
    return both(small(), images(), **asked)


def coupled(name: str, **asked: Any) -> list[Ran]:
    model = tiny.randomise(tiny_coupled.networks()[name])
    return both(model, images(), units=("inner", "coupled"), **asked)


def transformer(name: str, **asked: Any) -> list[Ran]:
    return both(zoo.transformer(name, dtype=torch.float32), samples(name), **asked)


def trained() -> list[float]:
    """The loss of each epoch, on the CPU and on the device."""
    read, losses = images(), []
    for device in ("cpu", second_device.NAME, "cpu"):
        model = small()
        log = fit(model, coprune.data.LoaderSource(read, 96), Recipe(epochs=2), seed=0, device=device)
        assert {p.device.type for p in model.parameters()} == {device}
        losses += log.loss
    return losses


def recovered() -> list[torch.Tensor]:
    """Logits of the unpruned model, of one pruned elsewhere, and of what either device makes of that."""
    read, teacher = images(), small()
    pruned = tiny.prune(
        teacher, train=read, eval=read, calibration=read, keep_macs=0.6, recovery="none", device="cpu"
    ).model
    made = [
        coprune.recover_model(pruned, teacher=teacher, calibration=read, device=device)
        for device in ("cpu", "auto")
    ]
    x = next(iter(read))[0]
    return [model(x).detach() for model in (teacher, pruned, *made)]


class Away(DataLoader):
    """A loader that puts its batches on the device."""

    def __iter__(self):
        for x, y in super().__iter__():
            yield x.to(second_device.NAME), y.to(second_device.NAME)


def loaded() -> list[Any]:
    """Kept units and stages with batches that the loader has put on the device, and with others."""
    found = []
    for read in (Away(images().dataset, batch_size=16), images(size=16)):
        outcome = tiny.prune(
            tiny.network("vgg16_bn"), train=read, eval=read, keep_macs=0.6, method="magnitude",
            calibration_samples=48, finetune_epochs=1, recovery="bn",
        )  # fmt: skip
        found.append(
            [{g.name: g.kept for g in outcome.plan.groups}, [s.value for s in outcome.result.stages]]
        )
    return found


def reconstructed() -> list[Any]:
    """Whether all layers together helped, and the logits then, on the device and on the CPU."""
    read, teacher = images(), tiny.network("vgg16_bn")
    outcome = tiny.prune(
        teacher, train=read, eval=read, calibration=read, keep_macs=0.6, recovery="none", device="cpu"
    )
    kept, source = kept_outputs(teacher, outcome.plan.groups), in_memory(read)
    found: list[Any] = []
    for device in (second_device.NAME, "cpu"):
        model, whole = copy.deepcopy(outcome.model), copy.deepcopy(teacher)
        did = reconstruct(Pair(model, whole, kept, device=device), source, visits=200)
        found += [did.changed, model.cpu()(next(iter(read))[0]).detach()]
    return found


def mixed() -> list[str]:
    here, there = torch.ones(2), torch.ones(2, device=second_device.NAME)
    said = []
    for action in (
        lambda: here + there,
        lambda: here[there.long()],
        lambda: there.index_add_(0, here.long(), there),
    ):
        try:
            said.append(str(action()))
        except RuntimeError as error:
            said.append(f"refused: {error}")
    said.append(str((there + torch.tensor(1.0)).sum().item() + float((there[torch.tensor([0])]).cpu())))
    return said


def nothing_old_to_search_for_garbage() -> None:
    """As everywhere else: what has just been imported is none."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def away():
    with second_device.away() as process:
        process.submit(nothing_old_to_search_for_garbage).result()
        yield lambda action, *given, **asked: process.submit(action, *given, **asked).result()


def agree(found: list[Ran]) -> None:
    here, there = found
    assert here.kept == there.kept
    assert here.stages == there.stages
    assert here.device == there.device == "cpu"
    assert (here.logits - there.logits).norm() < 0.005 * here.logits.norm()


def test_the_device_refuses_what_a_gpu_refuses(away):
    *refused, allowed = away(mixed)
    assert all(said.startswith("refused") for said in refused), refused
    assert allowed == "5.0"


@pytest.mark.parametrize("case", IMAGES)
def test_channels_of_every_method(away, case):
    method = case.partition(",")[0]
    agree(away(network, method=method, keep_macs=0.5, **IMAGES[case]))


@pytest.mark.parametrize("name", ["stream", "dense", "grouped", "normed"])
def test_coupled_channels(away, name):
    agree(away(coupled, name, keep_macs=0.6))


@pytest.mark.parametrize("budget", [{}, {"max_drop": 5.0}, {"keep_params": 0.5}, {"latency_ms": 1e3}])
def test_every_budget(away, budget):
    agree(away(network, **budget))


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers(away, name):
    agree(away(transformer, name, keep_macs=0.7))


@pytest.mark.parametrize("method", HEADS)
def test_heads_of_every_method(away, method):
    agree(away(transformer, "bert", method=method, units=("heads",), keep_heads=0.5))


def test_a_model_pruned_elsewhere_is_recovered(away):
    wanted, cut, here, there = away(recovered)
    assert (here - there).norm() < 0.005 * here.norm()
    assert (there - wanted).norm() < 0.5 * (cut - wanted).norm()


def test_a_loader_may_put_its_batches_on_the_device(away):
    there, here = away(loaded)
    assert there == here
    assert len(here[1]) == 4


def test_all_layers_together(away):
    changed, there, changed_here, here = away(reconstructed)
    assert changed
    assert changed_here
    assert (here - there).norm() < 0.005 * here.norm()


def test_training(away):
    losses = away(trained)
    assert losses[2:4] == pytest.approx(losses[:2], rel=1e-4)
    assert losses[4:] == losses[:2]
    assert losses[1] < losses[0]
