"""The default on transformers whose layers are not those of BERT: choice, cut and recovery in one."""

import copy

import pytest
import torch
from torch import nn

import coprune

transformers = pytest.importorskip("transformers")


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
        coprune.prune(m, train=read, eval=read, calibration=read, method=method, keep_macs=0.6)
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
