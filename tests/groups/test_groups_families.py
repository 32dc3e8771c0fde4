"""Families whose attention is laid out in a way of its own, and heads that cannot go, with the reason."""

import pytest

from coprune.groups import find_transformer_units, find_units
from coprune.surgery import cut
from tiny_transformers import ZOO, decide, inputs, transformer

pytest.importorskip("transformers")


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
