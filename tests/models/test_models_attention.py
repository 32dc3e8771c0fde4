"""The attention that stands in for PyTorch's computes what that computes."""

import copy
import itertools

import pytest
import torch
from torch import nn

from coprune.models.attention import (
    SeparateAttention,
    can_be_separated,
    separate_attention,
    separated_in,
)
from coprune.models.canonicalize import canonical_copy

N, L, S, E, H = 3, 5, 6, 16, 4


def made(**settings):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(E, H, **settings).double().eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return attention


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def masks():
    generator = torch.Generator().manual_seed(3)
    hidden = torch.rand(L, S, generator=generator) < 0.3
    hidden[:, 0] = False
    padded = torch.zeros(N, S, dtype=torch.bool)
    padded[1, 4:] = True
    each = torch.rand(N * H, L, S, generator=generator) < 0.3
    each[..., 0] = False
    return {
        "none": {},
        "boolean": {"attn_mask": hidden},
        "added": {"attn_mask": drawn(L, S)},
        "a map a head": {"attn_mask": each},
        "padding": {"key_padding_mask": padded},
        "padding, added": {"key_padding_mask": padded.double() * -3},
        "both": {"attn_mask": hidden, "key_padding_mask": padded},
    }


def same(found, wanted):
    assert (found is None) == (wanted is None)
    if wanted is not None:
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("weights", ["none", "mean", "all"])
@pytest.mark.parametrize(
    "settings", [{}, {"batch_first": True}, {"bias": False}, {"kdim": 10, "vdim": 7, "batch_first": True}]
)
def test_values_and_maps_are_those_of_pytorch(settings, weights, mask):
    attention = made(**settings)
    ours = SeparateAttention(attention).double()
    query, key, value = drawn(N, L, E), drawn(N, S, attention.kdim), drawn(N, S, attention.vdim)
    if not attention.batch_first:
        query, key, value = (t.transpose(0, 1) for t in (query, key, value))
    named = {"need_weights": weights != "none", "average_attn_weights": weights == "mean", **masks()[mask]}
    for fused in (True, False):
        ours.fused_attn = fused
        for found, wanted in zip(
            ours(query, key, value, **named), attention(query, key, value, **named), strict=True
        ):
            same(found, wanted)


def test_of_a_single_sample_without_an_axis_for_it():
    attention = made()
    ours = SeparateAttention(attention)
    x, padded = drawn(L, E), torch.tensor([False, False, False, True, True])
    for found, wanted in zip(
        ours(x, x, x, key_padding_mask=padded), attention(x, x, x, key_padding_mask=padded), strict=True
    ):
        same(found, wanted)


def test_gradients_reach_the_same_places():
    attention = made(batch_first=True)
    ours, x = SeparateAttention(attention), drawn(N, L, E)
    for module in (attention, ours):
        module(x, x, x, need_weights=False)[0].square().sum().backward()
    q, k, v = attention.in_proj_weight.grad.chunk(3)
    for layer, wanted in ((ours.q_proj, q), (ours.k_proj, k), (ours.v_proj, v)):
        torch.testing.assert_close(layer.weight.grad, wanted)
    torch.testing.assert_close(ours.out_proj.weight.grad, attention.out_proj.weight.grad)


def test_dropout_acts_in_training_alone():
    ours, x = SeparateAttention(made(dropout=0.5, batch_first=True)), drawn(N, L, E)
    for fused, need in itertools.product((True, False), (True, False)):
        ours.fused_attn = fused
        ours.eval()
        kept = ours(x, x, x, need_weights=need)[0]
        torch.testing.assert_close(ours(x, x, x, need_weights=need)[0], kept)
        ours.train()
        assert not torch.allclose(ours(x, x, x, need_weights=need)[0], kept)


def test_a_mask_for_other_heads_and_a_hint_without_a_mask_are_refused():
    ours, x = SeparateAttention(made(batch_first=True)), drawn(N, L, E)
    with pytest.raises(RuntimeError, match="for 3 samples of 4 heads"):
        ours(x, x, x, attn_mask=torch.zeros(N * 2, L, L))
    with pytest.raises(RuntimeError, match="attn_mask must be given"):
        ours(x, x, x, is_causal=True)


@pytest.mark.parametrize("settings", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_that_adds_keys_of_its_own_is_left_alone(settings):
    net = nn.Sequential(made(**settings))
    assert not can_be_separated(net[0])
    assert type(separate_attention(net)[0]) is nn.MultiheadAttention


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@torch.no_grad()
def test_pytorchs_own_layers_work_with_it(norm_first, nested):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(E, H, 24, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested).double().eval()
    ours = separate_attention(copy.deepcopy(encoder))
    padded = torch.zeros(N, L, dtype=torch.bool)
    padded[0, 3:] = True
    x = drawn(N, L, E)
    for named in ({}, {"src_key_padding_mask": padded}, {"mask": masks()["boolean"]["attn_mask"][:, :L]}):
        real = ~padded if "src_key_padding_mask" in named else torch.ones_like(padded)
        torch.testing.assert_close(ours(x, **named)[real], encoder(x, **named)[real])
    decoder = nn.TransformerDecoderLayer(E, H, 24, batch_first=True, norm_first=norm_first).double().eval()
    twin = separate_attention(copy.deepcopy(decoder))
    torch.testing.assert_close(twin(x, drawn(N, S, E)), decoder(x, drawn(N, S, E)))


def test_a_users_model_is_left_as_it_is():
    net = nn.TransformerEncoderLayer(E, H, 24, dropout=0.0)
    net.self_attn.out_proj.weight.requires_grad_(False)
    copied = canonical_copy(net)
    assert type(net.self_attn) is nn.MultiheadAttention
    assert net.training
    assert not copied.training
    assert isinstance(copied.self_attn, SeparateAttention)
    assert not copied.self_attn.q_proj.weight.requires_grad


@pytest.mark.parametrize(
    "settings", [{}, {"qk_norm": True}, {"scale_attn_inner": True}, {"qkv_fused": False}]
)
def test_evas_attention_becomes_one_with_equal_values_and_the_same_weights(settings):
    eva = pytest.importorskip("timm.models.eva")
    torch.manual_seed(0)
    model = eva.Eva(
        img_size=12,
        patch_size=4,
        in_chans=1,
        num_classes=3,
        embed_dim=32,
        depth=2,
        num_heads=4,
        use_rot_pos_emb=True,
        **settings,
    ).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 1, 12, 12, dtype=torch.float64)
    expected = model.eval()(x)
    weight = model.blocks[0].attn.proj.weight
    ours = separate_attention(model)
    assert [type(b.attn).__name__ for b in ours.blocks] == ["AttentionRope"] * 2
    assert ours.blocks[0].attn.proj.weight is weight
    assert torch.allclose(ours(x), expected, rtol=0, atol=1e-12)
    assert separated_in(ours) == ("blocks.0.attn", "blocks.1.attn")
