"""Models as they come: checkpointed, frozen, with parts that do not depend on the input or do not run."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint
from torchvision.ops import FrozenBatchNorm2d

import coprune
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.recovery.batchnorm import reestimate_batchnorm
from coprune.statistics import Calibration
from coprune.statistics.fisher import output_sensitivity
from coprune.surgery import sound


@pytest.fixture(autouse=True)
def no_latency(monkeypatch):
    monkeypatch.setattr(import_module("coprune.pipeline.context"), "measure_latency", lambda *_, **__: ())


class OwnFrozen(nn.Module):
    """A copy of torchvision's that knows its size."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((num_features,), value))

    def forward(self, x):
        scale = (self.weight * (self.running_var + 1e-5).rsqrt()).view(1, -1, 1, 1)
        return (x - self.running_mean.view(1, -1, 1, 1)) * scale + self.bias.view(1, -1, 1, 1)


class Net(nn.Module):
    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d, dropout: float = 0.0) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 8, 3, padding=1) for i in (1, 8, 8))
        self.n = nn.ModuleList(norm(8) for _ in range(3))
        self.drop, self.fc = nn.Dropout(dropout), nn.Linear(8, 3)

    def block(self, i, x):
        return self.drop(torch.relu(self.n[i]((self.a, self.b, self.c)[i](x))))

    def forward(self, x):
        for i in range(3):
            x = self.block(i, x)
        return self.fc(x.mean((2, 3)))


def batches(seed: int = 0) -> list:
    labels = torch.arange(64) % 3
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return list(zip((images + labels.view(-1, 1, 1, 1)).split(16), labels.split(16), strict=True))


def pruned(model: nn.Module, keep: float = 0.7, **options):
    return coprune.prune(model, train=batches(), eval=batches(), keep_macs=keep, force=True, **options)


class Checkpointed(Net):
    reentrant, always = False, False

    def forward(self, x):
        for i in range(3):
            once = self.always or self.training
            x = checkpoint(self.block, i, x, use_reentrant=self.reentrant) if once else self.block(i, x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("always", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant, always):
    # Once: CheckpointError, or nothing could be traced.
    outcomes = []
    for kind in (Net, Checkpointed):
        torch.manual_seed(0)
        net = kind(dropout=0.1)
        net.reentrant, net.always = reentrant, always
        outcomes.append(pruned(net, finetune_epochs=1, distill=0.9, match=1.0))
    plain, checkpointed = outcomes
    assert [g.kept for g in plain.plan.groups] == [g.kept for g in checkpointed.plan.groups]
    theirs = checkpointed.model.state_dict()
    assert all(torch.equal(t, theirs[n]) for n, t in plain.model.state_dict().items())
    said = [note for note in checkpointed.result.notes if "gradient checkpointing was off" in note]
    assert len(said) == 1
    assert not [note for note in plain.result.notes if "checkpointing" in note]
    # Outside it is as it was: the block runs again in the backward pass.
    calls, net = [], checkpointed.model.train()
    net.c.register_forward_hook(lambda *_: calls.append(1))
    net(batches()[0][0].requires_grad_()).sum().backward()
    assert len(calls) == 2


class Residual(Net):
    def block(self, i, x):
        made = super().block(i, x)
        return x + made if i else made


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, OwnFrozen])
@pytest.mark.parametrize(("kind", "units"), [(Net, ()), (Residual, ("inner", "coupled"))])
@pytest.mark.parametrize("method", ["complementary", "magnitude"])
def test_frozen_batch_norms_are_cut_like_others(norm, kind, units, method, tmp_path):
    # Once: "the size of tensor a (50) must match the size of tensor b (64)".
    net = kind(norm).eval()
    for buffer in net.n.buffers():
        buffer.uniform_(0.5, 1.5)
    outcome = pruned(net, units=units, method=method, finetune_epochs=1)
    left = outcome.model
    for i, layer in enumerate((left.a, left.b, left.c)):
        assert left.n[i].running_mean.numel() == layer.out_channels
        # Frozen: what is there is a part of what was.
        assert set(left.n[i].running_var.tolist()) <= set(net.n[i].running_var.tolist())
    assert sum(len(g.kept) < g.size for g in outcome.plan.groups) >= 1
    run, x = outcome.save(tmp_path / "run"), batches()[0][0]
    assert torch.equal(coprune.load(run, model=kind(norm))(x), left(x))
    assert reestimate_batchnorm(left, outcome_source()) == 0


def outcome_source():
    from coprune.data.arrays import ArraySource

    return ArraySource(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4) % 3)


class Asked(Net):
    """Channels are weighed by what three layers make of a learned query or of a fixed time step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.query = kind, nn.Parameter(torch.randn(1, 6))
        self.l1, self.l2, self.l3 = nn.Linear(6, 12), nn.Linear(12, 8), nn.Linear(8, 8)

    def weights(self, x):
        given = self.query
        if self.kind == "expanded":
            given = given.expand(len(x), -1)
        if self.kind == "time step":
            time = torch.full((len(x),), 3.0, dtype=x.dtype)
            given = torch.stack([torch.sin(time * k) for k in range(6)], 1)
        return self.l3(torch.relu_(self.l2(torch.relu_(self.l1(given)))))

    def block(self, i, x):
        made = super().block(i, x)
        return made if i else made * self.weights(x).sigmoid()[:, :, None, None]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", ["expanded", "time step", "once"])
def test_layers_that_do_not_depend_on_the_input(kind, frozen):
    # Once: KeyError in the sensitivity pass.
    outcome = pruned(Asked(kind).requires_grad_(not frozen), finetune_epochs=1)
    assert {"b", "c"} <= {g.name for g in outcome.plan.groups}
    reasons = {s.layer: s.reason for s in outcome.plan.skipped}
    if kind == "once":
        assert reasons["l2"] == "'l2' runs once for all samples, whatever they are"
    else:
        assert "l2" in {g.name for g in outcome.plan.groups}


def test_the_sensitivity_of_a_layer_that_never_runs_is_0():
    net = Net().eval()
    net.idle = nn.Linear(8, 5)
    (group, *_) = find_units(net, batches()[0][0][:1]).groups
    idle = [m.model_copy(update={"layer": "idle"}) for m in group.of_role("consumer")]
    groups = (group, replace(group, members=(*group.of_role("producer"), *idle)))
    costs = output_sensitivity(Calibration(net, groups, outcome_source(), 3, batch_size=2))
    assert costs["b/idle/sensitivity"].tolist() == [0.0] * 5
    assert float(costs["b/c/sensitivity"].max()) > 0


class Experts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3)
        )
        self.unused = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        chosen = int(x[0].mean() // 1)  # by the class, which is the brightness
        for i in range(3):
            x = self.block(i, x)
        return self.fc(self.experts[min(chosen, 2)](x.mean((2, 3))))


def test_layers_that_did_not_run_are_named():
    outcome = pruned(Experts())
    reasons = {s.layer: s.reason for s in outcome.plan.skipped}
    assert reasons["unused"].startswith("did not run on the example")
    experts = [reasons[f"experts.{i}.{j}"] for i in range(3) for j in (0, 2)]
    assert sum("runs for some inputs only" in reason for reason in experts) >= 4
    # What an expert reads stays whole: the others, which were not seen, read it too.
    assert [g.name for g in outcome.plan.groups] == ["b"]
    assert "runs for some inputs only" in reasons["c"]


class Routing(Net):
    """Two experts that share out the samples of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(2)
        )
        self.mid = nn.Linear(8, 8)

    def forward(self, x):
        bright = x.mean((1, 2, 3)) > 1.5
        for i in range(3):
            x = self.block(i, x)
        x = x.mean((2, 3))
        made = torch.zeros_like(x)
        for expert, mine in zip(self.experts, (bright, ~bright), strict=True):
            made[mine] = expert(x[mine])
        return self.fc(self.mid(x + made).relu())


def test_layers_that_read_some_of_the_samples_are_named():
    # Once: "shape '[48, -1, 64]' is invalid for input of size 2624" in least squares.
    outcome = pruned(Routing())
    reasons = {s.layer: s.reason for s in outcome.plan.skipped}
    assert all("runs for some inputs only" in reasons[f"experts.{i}.{j}"] for i in range(2) for j in (0, 2))
    assert {"b", "mid"} <= {g.name for g in outcome.plan.groups}


class Packing(nn.Module):
    """Words of texts of their own lengths, packed, and a head that reads the last states, or all steps."""

    def __init__(self, steps: bool) -> None:
        super().__init__()
        self.steps, self.words = steps, nn.Embedding(30, 8)
        self.rnn = nn.GRU(8, 12, batch_first=True, bidirectional=True)
        self.mid, self.fc = nn.Linear(24, 10), nn.Linear(10, 3)

    def forward(self, ids):
        lengths = (ids > 0).sum(1).clamp_min(1)
        packed = pack_padded_sequence(self.words(ids), lengths, batch_first=True, enforce_sorted=False)
        made, (forth, back) = self.rnn(packed)
        read = torch.cat([forth, back], 1)
        if self.steps:  # as many as the longest of the batch has
            read = pad_packed_sequence(made, batch_first=True)[0]
        made = self.fc(torch.relu(self.mid(read)))
        return made.mean(1) if self.steps else made


@pytest.mark.parametrize("steps", [False, True])
def test_texts_that_a_model_packs(steps):
    torch.manual_seed(0)
    ids = torch.randint(1, 30, (80, 9))
    for row in range(80):
        ids[row, 4 + row % 5 :] = 0
    outcome = coprune.prune(
        Packing(steps).eval(),
        calibration=list(ids[:60].split(20)),
        eval=[ids[60:]],
        task="regression",
        keep_macs=0.7,
        units=("inner", "coupled"),
        latency_batches=(),
        force=True,
    )
    assert [g.name for g in outcome.plan.groups] == ["rnn", "mid"]
    assert outcome.result.stages[-1].value > 0.5


class Reading(nn.Module):
    """Convolutions read by a recurrent or a transposed layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.gru, self.up = nn.GRU(8, 12, batch_first=True), nn.ConvTranspose2d(8, 3, 2, 2)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.a(x))))
        if self.kind == "gru":
            return self.fc(self.gru(x.mean(3).transpose(1, 2))[0][:, -1])
        return self.up(x).mean((2, 3))


@pytest.mark.parametrize("kind", ["gru", "up"])
def test_what_a_recurrent_or_transposed_layer_reads_can_go(kind):
    # Once: an IndexError's text with --units inner,coupled, which changed nothing; then refused by name.
    outcome = pruned(Reading(kind))
    (b,) = [group for group in outcome.plan.groups if group.name == "b"]
    assert len(b.kept) < b.size
    reader = getattr(outcome.model, kind)
    assert (reader.input_size if kind == "gru" else reader.in_channels) == len(b.kept)


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 80, 3, padding=1)
        self.c, self.d = nn.Linear(80, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)).view(-1, 80)
        return self.d(torch.relu(self.c(x)))


def test_a_budget_out_of_reach_names_the_layers_in_the_way():
    with pytest.raises(UserError) as refused:
        pruned(Fixed(), keep=0.3, units=("inner",))
    assert "; in the way: b 0.98" in str(refused.value)
    assert "shape '[-1, 80]' is invalid" in str(refused.value)


def test_complex_weights_are_left_alone_and_the_rest_is_cut():
    class Waves(Net):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(8, 8, dtype=torch.cfloat)

        def forward(self, x):
            for i in range(3):
                x = self.block(i, x)
            return self.fc(self.mix(x.mean((2, 3)).to(torch.cfloat)).abs())

    outcome = pruned(Waves())
    reasons = {s.layer: s.reason for s in outcome.plan.skipped}
    assert [g.name for g in outcome.plan.groups] == ["b"]
    assert "is complex" in reasons["c"]


def test_a_frozen_norm_that_mixes_nothing_is_sound():
    net, x = Net(FrozenBatchNorm2d).eval(), batches()[0][0][:1]
    units = find_units(net, x)
    assert sound(net, units, x) == units
