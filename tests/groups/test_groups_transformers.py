"""Heads and feed-forward neurons of every family: what is found, what is left alone, what it costs."""

import pytest
import torch
from torch import nn

from coprune.budget.cost import cost_model
from coprune.errors import UserError
from coprune.groups import families, find_transformer_units, find_units
from coprune.measure.macs import count_macs, layer_costs
from coprune.models.attention import separate_attention
from coprune.plan import Member
from coprune.surgery import cut
from tiny_transformers import CASES, ZOO, decide, inputs, transformer, uneven
from tiny_transformers_made import Encoder

pytest.importorskip("transformers")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

JOINT = {
    "mpnet": 1,
    "beit_shared": 1,
    "t5": 3,
    "t5_gated": 3,
    "mt5": 3,
    "albert": 1,
    "bloom": 0,
    "falcon_alibi": 0,
} | {name: 0 for name in ZOO if name.startswith("torchvision_")}
"""Number of head groups where it is not that of the attention modules."""


def found(name):
    return find_units(transformer(name), inputs(name))


def test_bert_heads_and_neurons_in_the_order_of_the_network():
    units = found("bert")
    layer = "bert.encoder.layer"
    assert [(g.name, g.kind, g.size) for g in units.groups] == [
        (f"{layer}.0.attention.self", "heads", 4),
        (f"{layer}.0.intermediate.dense", "neurons", 40),
        (f"{layer}.1.attention.self", "heads", 4),
        (f"{layer}.1.intermediate.dense", "neurons", 40),
    ]
    attention, block = f"{layer}.0.attention", f"{layer}.0"
    assert set(units.groups[0].members) == {
        Member(layer=f"{attention}.self.query", role="producer", span=8),
        Member(layer=f"{attention}.self.key", role="producer", span=8),
        Member(layer=f"{attention}.self.value", role="producer", span=8),
        Member(layer=f"{attention}.self", role="carrier"),
        Member(layer=f"{attention}.output.dense", role="consumer", span=8),
    }
    assert units.groups[1].members == (
        Member(layer=f"{block}.intermediate.dense", role="producer"),
        Member(layer=f"{block}.output.dense", role="consumer"),
    )
    reasons = {s.layer: s.reason for s in units.skipped}
    assert reasons["classifier"] == "makes the model's output"
    assert reasons["bert.pooler.dense"] == "outside the attention and feed-forward blocks"
    assert reasons["bert.embeddings.word_embeddings"].startswith("embedding")
    assert reasons[f"{attention}.output.dense"].startswith("adds to the residual stream")


def test_fused_projection_has_three_shares_and_grouped_queries_one_unit_a_key_head():
    heads = found("gpt2").groups[0]
    name = "transformer.h.0.attn"
    assert heads.name == name
    assert heads.of_role("producer") == tuple(
        Member(layer=f"{name}.c_attn", role="producer", offset=o, span=8) for o in (0, 32, 64)
    )
    assert found("timm").groups[0].of_role("producer") == tuple(
        Member(layer="blocks.0.attn.qkv", role="producer", offset=o, span=8) for o in (0, 32, 64)
    )
    # 8 query heads of 4 channels share 4 key and value heads.
    grouped = found("llama_grouped").groups[0]
    assert grouped.size == 4
    assert [m.span for m in grouped.of_role("producer")] == [8, 4, 4]
    assert [m.span for m in grouped.of_role("consumer")] == [8]


def test_gated_neurons_have_two_producers():
    neurons = found("llama").groups[1]
    assert [m.layer.rpartition(".")[2] for m in neurons.members] == ["gate_proj", "up_proj", "down_proj"]
    assert neurons.name == neurons.members[0].layer


def test_neurons_and_gates_of_one_layer_go_together():
    group = next(g for g in found("timm_packed").groups if g.kind == "neurons")
    assert [(m.layer.rpartition(".")[2], m.offset) for m in group.members] == [
        ("fc1", 0), ("fc1", group.size), ("fc2", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_every_layer_is_in_a_group_or_has_a_reason(name):
    model = transformer(name)
    units = find_transformer_units(model)
    attentions = [
        n for n, m in model.named_modules() if type(m).__name__.endswith(("Attention", "AttentionRope"))
    ]
    inner = [n for n in attentions if not any(o.startswith(f"{n}.") for o in attentions)]
    heads = [g for g in units.groups if g.kind == "heads"]
    assert len(heads) == JOINT.get(name, len(inner))
    assert [g.size for g in heads] == [4] * len(heads)
    dense = {
        n
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding) or type(m).__name__ == "Conv1D"
    }
    made = {m.layer for g in units.groups for m in g.members if m.role != "consumer"}
    skipped = [s.layer for s in units.skipped]
    assert len(skipped) == len(set(skipped))
    assert not made & set(skipped)
    assert dense <= made | set(skipped)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_cost_model_says_what_the_cut_model_costs(name, how):
    model, example = transformer(name, how), inputs(name, samples=1)
    units = find_units(model, example)
    decisions = uneven(units.groups)
    costs = cost_model(model, example, units.groups)
    full, cut_macs = count_macs(model, example), count_macs(cut(model, decisions), example)
    ratio = costs.ratio({d.name: len(d.kept) for d in decisions})
    assert costs.total({g.name: g.size for g in units.groups}) == full
    assert ratio == pytest.approx(cut_macs / full, rel=1e-6)


@pytest.mark.parametrize("name", ["bert", "vit", "llama", "llama_grouped"])
def test_macs_are_the_same_for_eager_and_fused_attention(name):
    example = inputs(name, samples=1)
    eager, fused = transformer(name, "eager"), transformer(name, "sdpa")
    assert layer_costs(eager, example) == layer_costs(fused, example)


def test_attention_products_by_hand():
    # 2 products of 4 heads: 7 tokens by 8 channels by 7 tokens, in each layer; none of it in children.
    costs = {c.name: c.macs for c in layer_costs(transformer("bert"), inputs("bert", samples=1))}
    assert costs["bert.encoder.layer.0.attention.self"] == 2 * 4 * 7 * 8 * 7
    assert costs["bert.encoder.layer.0.attention.self.query"] == 7 * 32 * 32


def test_counting_leaves_gradients_and_settings_as_they_were():
    model = transformer("deberta")
    model.deberta.embeddings.word_embeddings.weight.requires_grad_(False)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    fast = torch.backends.mha.get_fastpath_enabled()
    count_macs(model, inputs("deberta", samples=1))
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_skip_leaves_a_module_alone_and_says_so():
    model = transformer("bert")
    units = find_units(model, inputs("bert"), skip=["bert.encoder.layer.0"])
    assert [g.name for g in units.groups] == [
        "bert.encoder.layer.1.attention.self",
        "bert.encoder.layer.1.intermediate.dense",
    ]
    asked = {s.layer for s in units.skipped if s.reason == "left alone as asked (--skip)"}
    assert "bert.encoder.layer.0.attention.self.query" in asked
    with pytest.raises(UserError, match="no such layer"):
        find_units(model, inputs("bert"), skip=["bert.encoder.layer.7"])


def test_a_single_head_or_neuron_is_left_alone_with_the_reason():
    # Once a bug: a model that was cut before offered its last head again, which can never go.
    model = transformer("bert")
    first, block = find_units(model, inputs("bert")).groups[:2]
    left = find_units(cut(model, (decide(first, (2,)), decide(block, (3,)))), inputs("bert"))
    assert [g.name for g in left.groups] == [
        "bert.encoder.layer.1.attention.self",
        "bert.encoder.layer.1.intermediate.dense",
    ]
    reasons = {s.layer: s.reason for s in left.skipped}
    assert {reasons[m.layer] for m in first.of_role("producer")} == {"makes a single head"}
    assert reasons[block.name] == "makes a single neuron"


class MyAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        return self.qkv(x)[..., :8]


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.inner = nn.Linear(8, 5)
        self.back = nn.Linear(5, 8)
        self.attention = MyAttention()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.back(torch.relu(self.inner(self.stem(x))))
        return self.head(self.attention(x))


def test_unknown_attention_is_left_alone_with_a_way_out():
    units = find_units(Mine(), torch.zeros(1, 6))
    # What the attention reads can go, its own channels cannot.
    assert [g.name for g in units.groups] == ["inner", "back"]
    assert not any("attention" in m.layer for g in units.groups for m in g.members if m.role == "producer")
    assert find_units(Mine(), {"x": torch.zeros(1, 6)}) == units


def test_unknown_attention_can_be_skipped():
    assert find_transformer_units(Mine(), skip=["attention"]) is None


def test_a_family_can_be_added():
    ours = families.AttentionFamily(
        "mine",
        ("MyAttention",),
        tuple(families.Projection("qkv", part, 3) for part in range(3)),
        "out",
        "head_dim",
        home="",
        scaled=("num_heads",),
    )
    model = Mine()
    model.attention.head_dim, model.attention.out = 4, nn.Linear(8, 8)
    families.ATTENTIONS.append(ours)
    try:
        (heads,) = [g for g in find_units(model, torch.zeros(1, 6)).groups if g.kind == "heads"]
        pruned = cut(model, (decide(heads, (1,)),))
    finally:
        families.ATTENTIONS.remove(ours)
    assert (heads.name, heads.size, heads.kind) == ("attention", 2, "heads")
    assert pruned.attention.num_heads == 1
    rows = model.attention.qkv.weight.view(3, 2, 4, 8)[:, 1].flatten(0, 1)
    assert torch.equal(pruned.attention.qkv.weight, rows)


def test_a_network_without_attention_has_no_transformer_units(traced):
    assert find_transformer_units(traced["resnet20"][0]) is None


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision_swin", "features.1.0.attn"),
        ("torchvision_swin_v2", "features.3.0.attn"),
        ("torchvision_maxvit", "blocks.0.layers.0.layers.window_attention.attn_layer.1"),
    ],
)
def test_attention_that_reshapes_by_the_width_is_left_alone_with_the_reason(name, layer):
    units = found(name)
    kinds = {g.kind for g in units.groups}
    assert "neurons" in kinds
    assert "heads" not in kinds
    reasons = {s.layer: s.reason for s in units.skipped}
    assert "cannot be cut" in reasons[layer]


def test_pytorchs_own_attention_has_heads_once_its_projections_are_apart():
    encoder = Encoder(batch_first=True).double().eval()
    units = find_units(encoder, inputs("encoder"))
    assert {g.kind for g in units.groups} == {"neurons"}
    assert any("cannot be cut" in s.reason for s in units.skipped)
    groups = find_units(separate_attention(encoder), inputs("encoder")).groups
    assert [(g.kind, g.size) for g in groups] == [("heads", 4), ("neurons", 40)] * 2


def test_heads_that_depend_on_one_another_are_left_alone():
    from transformers import DebertaConfig, DebertaForSequenceClassification

    settings = {**ZOO["deberta"].settings, "talking_head": True}
    units = find_transformer_units(DebertaForSequenceClassification(DebertaConfig(**settings)))
    assert {g.kind for g in units.groups} == {"neurons"}
    assert any("talking heads" in s.reason for s in units.skipped)


def test_channels_of_convolutional_stages_are_units_beside_neurons():
    model, image = transformer("torchvision_maxvit"), inputs("torchvision_maxvit", samples=1)
    units = find_units(model, image, coupled=True)
    kinds = {g.name: g.kind for g in units.groups}
    for block in ("blocks.0.layers.0.layers", "blocks.1.layers.0.layers"):
        assert kinds[f"{block}.MBconv.layers.conv_a.0"] == "inner"  # squeeze-and-excite multiplies it
        assert kinds[f"{block}.MBconv.layers.squeeze_excitation.fc1"] == "inner"
        assert kinds[f"{block}.window_attention.mlp_layer.1"] == "neurons"
    assert kinds["stem.1.0"] == "inner"
    # Attention is not traced: no channel inside of it, nor of the stream that it adds to.
    made = {m.layer for g in units.groups for m in g.members if m.role != "consumer"}
    assert not [layer for layer in made if "attn_layer" in layer or "conv_c" in layer or "proj" in layer]
    reasons = {s.layer: s.reason for s in units.skipped}
    assert "meet those of attention" in reasons["blocks.0.layers.0.layers.MBconv.layers.conv_c"]
    attention = "blocks.0.layers.0.layers.window_attention.attn_layer.1"
    assert reasons[f"{attention}.merge"] == f"inside '{attention}', which is left alone"
    # In the order of the network, and what is a unit is not among what is left alone.
    order = [name for name, _ in model.named_modules()]
    places = [order.index(g.of_role("producer")[0].layer) for g in units.groups]
    assert places == sorted(places)
    assert not made & reasons.keys()
    # A transformer and nothing else is not traced, and one that cannot be traced keeps its own units.
    assert not {g.kind for g in found("timm").groups} - {"heads", "neurons"}


def test_heads_whose_rotary_embedding_is_their_own_are_left_alone():
    from timm.models.eva import Eva

    mixed = Eva(
        img_size=12,
        patch_size=4,
        in_chans=1,
        num_classes=3,
        embed_dim=32,
        depth=1,
        num_heads=4,
        use_rot_pos_emb=True,
        rope_type="mixed",
        attn_type="rope",
    )
    units = find_units(mixed, torch.zeros(1, 1, 12, 12))
    assert "heads" not in {g.kind for g in units.groups}
    assert "frequencies for each head" in {s.layer: s.reason for s in units.skipped}["blocks.0.attn"]


def test_a_family_is_that_of_its_module_and_of_no_other_that_begins_like_it():
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    second = SwinTransformerV2(
        img_size=16,
        patch_size=4,
        in_chans=1,
        num_classes=3,
        embed_dim=16,
        depths=(1,),
        num_heads=(2,),
        window_size=2,
    )
    units = find_units(second, torch.zeros(1, 1, 16, 16))
    assert "heads" not in {g.kind for g in units.groups}
