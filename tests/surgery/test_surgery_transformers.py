"""Heads and neurons: cutting equals masking, in every family, with every layer cut differently."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coprune.errors import UserError
from coprune.groups import find_units
from coprune.plan import GroupDecision
from coprune.surgery import cut, masked
from tiny_transformers import CASES, decide, inputs, output, transformer, uneven

pytest.importorskip("transformers")
pytest.importorskip("timm")
pytest.importorskip("torchvision")


@pytest.mark.parametrize(("name", "how"), CASES)
def test_cut_equals_masked_with_uneven_heads_and_neurons(name, how):
    model, example = transformer(name, how), inputs(name)
    decisions = uneven(find_units(model, example).groups)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    full = output(model, example)
    with masked(model, decisions):
        silenced = output(model, example)
    pruned = cut(model, decisions)
    torch.testing.assert_close(output(pruned, example), silenced, rtol=1e-5, atol=1e-5)
    assert (silenced - full).abs().max() > 1e-2  # something was removed
    assert type(pruned) is type(model)
    # The original is as it was.
    assert torch.equal(output(model, example), full)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama_grouped", "deberta", "timm"])
def test_nothing_removed_changes_nothing(name):
    model, example = transformer(name), inputs(name)
    decisions = tuple(decide(g, tuple(range(g.size))) for g in find_units(model, example).groups)
    pruned = cut(model, decisions)
    assert torch.equal(output(pruned, example), output(model, example))


@pytest.mark.parametrize("name", ["bert", "gpt2", "deberta", "mpnet", "swin", "llama_grouped", "timm"])
def test_a_pruned_model_can_be_pruned_again(name):
    model, example = transformer(name), inputs(name)
    groups = find_units(model, example).groups
    once = cut(model, tuple(decide(g, tuple(range(1, g.size))) for g in groups))
    again = find_units(once, example).groups
    assert [g.size for g in again] == [g.size - 1 for g in groups]
    twice = cut(once, tuple(decide(g, tuple(range(1, g.size))) for g in again))
    direct = cut(model, tuple(decide(g, tuple(range(2, g.size))) for g in groups))
    assert torch.equal(output(twice, example), output(direct, example))


def test_bert_rows_and_columns_by_hand():
    model, example = transformer("bert"), inputs("bert")
    heads, neurons, *_ = find_units(model, example).groups
    pruned = cut(model, (decide(heads, (1, 3)), decide(neurons, (0, 39))))
    old, new = model.bert.encoder.layer[0], pruned.bert.encoder.layer[0]
    rows = [*range(8, 16), *range(24, 32)]
    for kind in ("query", "key", "value"):
        before, after = getattr(old.attention.self, kind), getattr(new.attention.self, kind)
        assert torch.equal(after.weight, before.weight[rows])
        assert torch.equal(after.bias, before.bias[rows])
        assert after.out_features == 16
    assert torch.equal(new.attention.output.dense.weight, old.attention.output.dense.weight[:, rows])
    assert torch.equal(new.attention.output.dense.bias, old.attention.output.dense.bias)
    assert (new.attention.self.num_attention_heads, new.attention.self.all_head_size) == (2, 16)
    assert torch.equal(new.intermediate.dense.weight, old.intermediate.dense.weight[[0, 39]])
    assert torch.equal(new.output.dense.weight, old.output.dense.weight[:, [0, 39]])
    # The other layer is untouched.
    assert pruned.bert.encoder.layer[1].attention.self.num_attention_heads == 4


def test_frozen_parameters_stay_frozen_and_the_rest_trains():
    model, example = transformer("bert"), inputs("bert")
    model.bert.encoder.layer[0].requires_grad_(False)
    pruned = cut(model, uneven(find_units(model, example).groups))
    trains = {n: p.requires_grad for n, p in pruned.named_parameters()}
    assert trains == {n: p.requires_grad for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in pruned.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(5):
        loss = pruned.train()(**example, labels=torch.tensor([0, 2])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "t5", "bart"])
def test_generation_with_cache_is_that_of_the_masked_model(name, how):
    model, example = transformer(name, how), inputs(name)
    example = {"input_ids": example["input_ids"][:1], "attention_mask": example["attention_mask"][:1]}
    decisions = uneven(find_units(model, example).groups)
    pruned = cut(model, decisions)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "output_logits": True}
    with masked(model, decisions):
        slow = model.generate(**example, **options, return_dict_in_generate=True, use_cache=True)
    for cache in (True, False):
        fast = pruned.generate(**example, **options, return_dict_in_generate=True, use_cache=cache)
        assert torch.equal(fast.sequences, slow.sequences)
        for a, b in zip(fast.logits, slow.logits, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_tied_weights_stay_tied():
    for name in ("gpt2", "t5", "bart"):
        model, example = transformer(name), inputs(name)
        pruned = cut(model, uneven(find_units(model, example).groups))
        assert pruned.lm_head.weight is pruned.get_input_embeddings().weight


@settings(max_examples=15)
@given(st.data())
def test_any_choice_of_units_cut_equals_masked(data):
    name = data.draw(st.sampled_from(["bert", "deberta_v2", "gpt2", "llama_grouped", "timm"]))
    model, example = MODELS.setdefault(name, transformer(name)), inputs(name)
    decisions = tuple(
        decide(g, tuple(sorted(data.draw(st.sets(st.integers(0, g.size - 1), min_size=1)))))
        for g in find_units(model, example).groups
    )
    with masked(model, decisions):
        silenced = output(model, example)
    torch.testing.assert_close(output(cut(model, decisions), example), silenced, rtol=1e-6, atol=1e-6)


MODELS: dict = {}


def test_units_in_another_order_give_the_same_answer():
    """Permuting heads in all projections permutes which one is which, and nothing else."""
    model, example = transformer("bert"), inputs("bert")
    heads = find_units(model, example).groups[0]
    swapped = copy.deepcopy(model)
    attention = swapped.bert.encoder.layer[0].attention
    order = torch.arange(32).view(4, 8)[[2, 0, 3, 1]].flatten()
    with torch.no_grad():
        for layer in (attention.self.query, attention.self.key, attention.self.value):
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
        attention.output.dense.weight.copy_(attention.output.dense.weight[:, order])
    a = output(cut(model, (decide(heads, (0, 2)),)), example)
    b = output(cut(swapped, (decide(heads, (0, 1)),)), example)
    torch.testing.assert_close(a, b)


def test_a_plan_for_another_model_is_refused():
    model, example = transformer("bert"), inputs("bert")
    decisions = uneven(find_units(model, example).groups)
    with pytest.raises(UserError, match="plan for another model"):
        cut(transformer("roberta"), decisions)
    pruned = cut(model, decisions)
    with pytest.raises(UserError, match="has 8 channels, the plan says 32"):
        cut(pruned, decisions)
    gpt2 = transformer("gpt2")
    fused = find_units(gpt2, inputs("gpt2")).groups[0]
    wrong = tuple(m.model_copy(update={"span": 4}) for m in fused.members)
    with pytest.raises(UserError, match="c_attn' has 96 channels, the plan says"):
        cut(gpt2, (GroupDecision(name=fused.name, members=wrong, size=4, kept=(0,), reason="r"),))


def test_a_group_without_a_share_in_the_layer_it_is_named_after_is_refused():
    model, example = transformer("bert"), inputs("bert")
    group = find_units(model, example).groups[1]
    other = decide(group, (0,)).model_copy(update={"name": "bert.pooler.dense"})
    with pytest.raises(UserError, match=r"group 'bert\.pooler\.dense' lists no channels"):
        cut(model, (other,))
