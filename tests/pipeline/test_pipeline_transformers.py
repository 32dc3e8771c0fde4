"""The default on transformers whose layers are not those of BERT: choice, cut and recovery in one."""

import copy

import pytest
import torch
from torch import nn

import coprune
import tiny
import tiny_transformers as zoo
from coprune.models.attention import separate_attention
from coprune.result import Code
from coprune.tracing.forward import part_of
from tiny_transformers_made import Encoder

transformers = pytest.importorskip("transformers")

CLASSIFIES = ("SequenceClassification", "ImageClassification")
NO_CLASSIFIERS = {
    name
    for name, tiny in zoo.ZOO.items()
    if (tiny.model and not tiny.model.endswith(CLASSIFIES)) or tiny.reads == "wave"
}
"""They generate, tag, or compare; their classifying forms are other cases. Or hear, which loaders do not."""

FEW_UNITS = {
    "torchvision": 0.9,
    "torchvision_swin": 0.85,
    "torchvision_swin_v2": 0.9,
    "torchvision_maxvit": 0.9,
}
"""Those whose attention is left alone keep more of the MACs."""


class Loader(list):
    dataset = range(48)


def sentences():
    generator = torch.Generator().manual_seed(0)
    return Loader(
        (
            {
                "input_ids": torch.randint(5, 50, (8, 7), generator=generator),
                "attention_mask": torch.ones(8, 7, dtype=torch.int64),
            },
            torch.arange(8) % 3,
        )
        for _ in range(6)
    )


def classifier():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=40,
        n_positions=40,
        num_labels=3,
        pad_token_id=0,
    )
    model = transformers.GPT2ForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def with_plain_layers(model):
    """The same network with ``nn.Linear`` in place of every ``Conv1D``."""
    twin = copy.deepcopy(model)
    for name, module in list(twin.named_modules()):
        if type(module).__name__ == "Conv1D":
            layer = nn.Linear(module.nx, module.nf)
            layer.weight.data, layer.bias.data = module.weight.data.T.clone(), module.bias.data.clone()
            parent, _, last = name.rpartition(".")
            setattr(twin.get_submodule(parent), last, layer)
    return twin


@pytest.mark.parametrize("method", ["complementary", "magnitude", "taylor"])
def test_transposed_layers_are_pruned_and_solved_like_plain_ones(method):
    model, read = classifier(), sentences()
    twin = with_plain_layers(model)
    first = read[0][0]
    torch.testing.assert_close(model(**first).logits, twin(**first).logits)
    found = [
        tiny.prune(m, train=read, eval=read, calibration=read, method=method, keep_macs=0.6)
        for m in (model, twin)
    ]
    ours, theirs = ({g.name: g.kept for g in outcome.plan.groups} for outcome in found)
    assert ours == theirs
    assert any(
        len(kept) < group.size for kept, group in zip(ours.values(), found[0].plan.groups, strict=True)
    )
    with torch.no_grad():
        a, b = (outcome.model(**first).logits for outcome in found)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    cut = found[0].model.transformer.h[0].mlp.c_proj
    assert type(cut).__name__ == "Conv1D"
    assert not torch.equal(
        cut.weight, model.transformer.h[0].mlp.c_proj.weight[list(ours["transformer.h.0.mlp.c_fc"])]
    )


def loader(name):
    whole = zoo.inputs(name, samples=48, dtype=torch.float32)
    labels = torch.arange(48) % zoo.CLASSES
    return Loader((part_of(whole, slice(i, i + 8)), labels[i : i + 8]) for i in range(0, 48, 8))


@pytest.mark.parametrize("name", sorted(zoo.ZOO.keys() - NO_CLASSIFIERS))
def test_the_default_prunes_and_recovers_every_family(name, tmp_path):
    model, read = zoo.transformer(name, dtype=torch.float32), loader(name)
    keep = FEW_UNITS.get(name, 0.6)
    with_it, without = (
        tiny.prune(model, train=read, eval=read, calibration=read, keep_macs=keep, recovery=how)
        for how in ("least-squares", "none")
    )
    stages = with_it.result.stage("base"), with_it.result.stage("recovered")
    assert stages[1].macs <= keep * stages[0].macs
    wanted, recovered, cut = (
        torch.cat([zoo.output(m, x) for x, _ in read]) for m in (model, with_it.model, without.model)
    )
    assert (recovered - wanted).square().mean() < (cut - wanted).square().mean()


@pytest.mark.parametrize(("units", "opens"), [("neurons", True), ("heads", False)])
@pytest.mark.parametrize("method", ["complementary", "magnitude"])
def test_uniform_sizes_are_what_the_library_opens(method, units, opens, tmp_path):
    model, read = classifier(), sentences()
    outcome = tiny.prune(
        model,
        train=read,
        eval=read,
        calibration=read,
        method=method,
        units=units,
        keep_macs=0.7,
        uniform=True,
    )
    kept = {len(group.kept) for group in outcome.plan.groups}
    assert len(kept) == 1
    assert outcome.plan.settings["uniform"] is True
    (note,) = (n for n in outcome.result.notes if n.code == Code.FORMAT)
    assert ("does not" in note) != opens
    outcome.save(tmp_path / "run")
    first = read[0][0]
    if opens:
        assert outcome.model.config.n_inner == kept.pop() < model.config.n_inner
        opened = type(model).from_pretrained(tmp_path / "run")
        assert torch.equal(opened(**first).logits, outcome.model(**first).logits)
    assert torch.equal(coprune.load(tmp_path / "run")(**first).logits, outcome.model(**first).logits)


def test_uniform_layers_one_after_another_need_a_budget():
    read = sentences()
    with pytest.raises(coprune.UserError, match="uniform needs a budget"):
        tiny.prune(classifier(), train=read, eval=read, method="cosep", schedule="layerwise", uniform=True)


class Around(nn.Module):
    """A user's module, whose attention is PyTorch's."""

    def __init__(self):
        super().__init__()
        self.net = Encoder(batch_first=True)

    def forward(self, x):
        return self.net(x)


def test_heads_of_a_users_own_encoder_go_and_the_run_folder_loads(tmp_path):
    torch.manual_seed(0)
    model, read = Around().eval(), loader("encoder")
    first = read[0][0]
    before = model(first)
    outcome = tiny.prune(model, train=read, eval=read, calibration=read, keep_macs=0.6)
    assert type(model.net.encoder.layers[0].self_attn) is nn.MultiheadAttention
    torch.testing.assert_close(model(first), before)
    heads = {g.name: len(g.kept) for g in outcome.plan.groups if g.name.endswith("self_attn")}
    assert len(heads) == 2
    assert sum(heads.values()) < 8
    outcome.save(tmp_path / "run")
    for fresh in (Around(), separate_attention(Around())):
        loaded = coprune.load(tmp_path / "run", model=fresh)
        assert [m.num_heads for m in loaded.modules() if hasattr(m, "head_dim")] == list(heads.values())
        assert torch.equal(loaded(first), outcome.model(first))


@pytest.mark.parametrize("name", ["llama", "clip", "t5"])
def test_what_is_no_classifier_is_refused_in_a_line(name):
    model, read = zoo.transformer(name, dtype=torch.float32), loader(name)
    with pytest.raises(coprune.UserError, match=r"classifier|input_ids") as refused:
        tiny.prune(model, train=read, eval=read, calibration=read, keep_macs=0.6)
    assert "\n" not in str(refused.value)
