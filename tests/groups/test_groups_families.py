"""Families whose attention is laid out in a way of its own, and heads that cannot go, with the reason."""

import pytest
import torch
from torch import nn

import coprune
from coprune.groups import find_transformer_units, find_units
from coprune.store import save_model
from coprune.surgery import cut, masked, sound
from tiny_transformers import ZOO, decide, inputs, output, transformer, uneven

transformers = pytest.importorskip("transformers")


def units_of(name):
    return find_units(transformer(name), inputs(name))


def test_a_fused_projection_with_fewer_keys_than_queries_has_unequal_parts():
    # 8 query heads of 8 channels, then 4 keys, then 4 values, in one layer of 128.
    heads = units_of("phi3").groups[0]
    assert [(m.offset, m.span) for m in heads.of_role("producer")] == [(0, 16), (64, 8), (96, 8)]
    assert heads.size == 4


def test_heads_that_a_shared_configuration_counts_are_counted_by_layer():
    model, example = transformer("phi3"), inputs("phi3")
    heads = [g for g in find_units(model, example).groups if g.kind == "heads"]
    pruned = cut(model, (decide(heads[0], (1, 2, 3)),))
    layers = pruned.model.layers
    assert [layer.self_attn.config.num_attention_heads for layer in layers] == [6, 8]
    assert [layer.self_attn.num_key_value_heads for layer in layers] == [3, 4]
    assert (pruned.config.num_attention_heads, model.config.num_attention_heads) == (8, 8)
    assert model.model.layers[0].self_attn.config is model.config


@pytest.mark.parametrize(("name", "owns"), [("falcon", [24]), ("falcon_grouped", [16]), ("gpt_neox", [24])])
def test_queries_keys_and_values_of_a_head_may_lie_side_by_side(name, owns):
    heads = units_of(name).groups[0]
    assert ([m.span for m in heads.of_role("producer")], heads.size) == (owns, 4)


@pytest.mark.parametrize("name", ["bloom", "falcon_alibi"])
def test_heads_whose_positions_are_made_for_all_of_them_at_once_are_left_alone(name):
    units = units_of(name)
    assert {g.kind for g in units.groups} == {"neurons"}
    assert [s.reason.partition(";")[0] for s in units.skipped if "ALiBi" in s.reason] == [
        "its ALiBi slopes are made outside of it, for all heads of all layers at once"
    ] * 2


def test_one_key_head_for_all_queries_is_one_unit_which_stays():
    from transformers import FalconConfig, FalconModel

    config = FalconConfig(**{**ZOO["falcon"].settings, "multi_query": True})
    units = find_transformer_units(FalconModel(config))
    assert {g.kind for g in units.groups} == {"neurons"}
    assert "makes a single head" in {s.reason for s in units.skipped}


def test_norms_over_all_heads_keep_them_together():
    from transformers import CohereConfig, CohereModel, Olmo2Config, Olmo2Model

    settings = ZOO["qwen3"].settings
    for model in (
        Olmo2Model(Olmo2Config(**settings)),
        CohereModel(CohereConfig(**settings, use_qk_norm=True)),
    ):
        assert {g.kind for g in find_transformer_units(model).groups} == {"neurons"}
    free = find_transformer_units(CohereModel(CohereConfig(**settings, use_qk_norm=False)))
    assert {g.kind for g in free.groups} == {"heads", "neurons"}


UNREAD = {
    "HeliumForCausalLM": ("HeliumConfig", "llama_grouped"),
    "GlmForCausalLM": ("GlmConfig", "llama_grouped"),
    "NemotronForCausalLM": ("NemotronConfig", "llama_grouped"),
    "BioGptForCausalLM": ("BioGptConfig", "bert"),
    "RoFormerForTokenClassification": ("RoFormerConfig", "bert"),
    "LayoutLMForSequenceClassification": ("LayoutLMConfig", "bert"),
    "Olmo3ForCausalLM": ("Olmo3Config", "llama_grouped"),
}
"""Classes that no entry names → configuration, and a family whose settings it takes."""


def unread(name):
    config, like = UNREAD[name]
    torch.manual_seed(1)
    model = getattr(transformers, name)(getattr(transformers, config)(**ZOO[like].settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval(), inputs(like)


@pytest.mark.parametrize("name", UNREAD)
def test_usual_layouts_of_unknown_classes_are_tried(name, tmp_path):
    model, example = unread(name)
    found = find_units(model, example)
    assert all(g.tried for g in found.groups)
    assert [(g.kind, g.size) for g in found.groups] == [("heads", 4), ("neurons", 40)] * 2
    units = sound(model, found, example)
    if name.startswith("Olmo3"):  # its norms of queries and keys run over all heads
        assert {g.kind for g in units.groups} == {"neurons"}
        assert (
            "does not run when it is cut"
            in {s.layer: s.reason for s in units.skipped}["model.layers.0.self_attn.q_proj"]
        )
        return
    assert units.groups == found.groups
    decisions = uneven(units.groups)
    with masked(model, decisions):
        silenced = output(model, example)
    pruned = cut(model, decisions)
    torch.testing.assert_close(output(pruned, example), silenced)
    save_model(tmp_path, pruned)
    assert torch.equal(output(coprune.load(tmp_path), example), output(pruned, example))


class MixingAttention(nn.Module):
    """Attention of a usual layout that hands a part of each head to the next one."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim = 4, 2
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        q, k, v = (
            p(x).unflatten(-1, (-1, 2)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o_proj((mixed + mixed.roll(1, 1)).transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(5, 8), MixingAttention(), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.attention(self.first(x)).mean(1))


def test_heads_that_turn_out_to_be_mixed_are_left_alone():
    torch.manual_seed(0)
    model, x = Net().double().eval(), torch.randn(1, 6, 5, dtype=torch.float64)
    found = find_units(model, x)
    assert [g.kind for g in found.groups if g.name == "attention"] == ["heads"]
    units = sound(model, found, x)
    assert "heads" not in {g.kind for g in units.groups}
    assert "other channels change too" in {s.layer: s.reason for s in units.skipped}["attention.q_proj"]


def test_neurons_are_found_where_heads_cannot_be_cut():
    # WavLM gives one position bias a head to all layers.
    settings = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "hidden_size": 16}
    settings |= {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    settings |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    torch.manual_seed(0)
    model = transformers.WavLMModel(transformers.WavLMConfig(**settings)).double().eval()
    example = {"input_values": torch.randn(1, 800, dtype=torch.float64)}
    units = sound(model, find_units(model, example), example)
    assert [(g.kind, g.size) for g in units.groups] == [("neurons", 24)] * 2
    assert "does not run when it is cut" in str(units.skipped)
