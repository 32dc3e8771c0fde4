"""Head signatures against a twin that goes sentence by sentence: crop, interpolate, NumPy moments."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coprune.data.sharding import OwnBatch
from coprune.errors import UserError
from coprune.groups import ChannelGroup
from coprune.methods.cahp.signatures import (
    HeadSignatures,
    SignatureCollector,
    head_maps,
    heads_of,
    real_tokens,
    resized,
)
from coprune.plan import Member
from coprune.statistics import Calibration, Profile, collect
from coprune.tracing.forward import logits_of
from tiny_heads import CLASSES, bert, bert_groups, sentences


def cropped_and_interpolated(one, n, grid):
    """What the published code does with one head's map ``[T, T]`` of one sentence of ``n`` tokens."""
    return F.interpolate(one[None, None, :n, :n], size=(grid, grid), mode="bilinear", align_corners=False)[
        0, 0
    ]


@pytest.fixture(scope="module")
def gathered():
    model, source = bert(), sentences(40)
    groups = bert_groups(model)
    tensors = collect(Calibration(model, groups, source, CLASSES, batch_size=7), [HeadSignatures(8)])
    return model, source, groups, Profile(groups, tensors)


@given(
    lengths=st.lists(st.integers(1, 23), min_size=1, max_size=5),
    grid=st.sampled_from([1, 2, 5, 8, 32]),
    seed=st.integers(0, 1000),
)
def test_a_batch_is_resized_as_each_sentence_is(lengths, grid, seed):
    draw = torch.Generator().manual_seed(seed)
    maps = torch.rand(len(lengths), 3, 23, 23, generator=draw, dtype=torch.float64)
    found = resized(maps, torch.tensor(lengths), grid)
    for i, n in enumerate(lengths):
        for h in range(3):
            twin = cropped_and_interpolated(maps[i, h], n, grid)
            torch.testing.assert_close(found[i, h], twin, rtol=0, atol=1e-12)


def test_signatures_equal_a_twin_that_goes_sentence_by_sentence(gathered):
    model, source, groups, profile = gathered
    twin = bert(attention="eager")
    twin.load_state_dict(model.state_dict())
    seen = {(g.name, c): [] for g in groups for c in range(CLASSES)}
    for inputs, labels in source.batches(1):
        with torch.no_grad():
            drawn = twin(**inputs, output_attentions=True).attentions
        for group, maps in zip([g for g in groups if g.kind == "heads"], drawn, strict=True):
            n = int(inputs["attention_mask"].sum())
            rows = [cropped_and_interpolated(maps[0, h], n, 8).flatten() for h in range(group.size)]
            seen[group.name, int(labels)].append(torch.stack(rows).double().numpy())
    for group in groups:
        if group.kind != "heads":
            continue
        moments = profile.of(HeadSignatures(8), group)
        for c in range(CLASSES):
            rows = np.stack(seen[group.name, c])
            assert moments.count[c] == len(rows)
            np.testing.assert_allclose(moments.mean[c], rows.mean(0), rtol=0, atol=1e-6)
            np.testing.assert_allclose(moments.variance[c], rows.var(0, ddof=1), rtol=0, atol=1e-6)


def test_only_heads_are_looked_at_and_everything_is_float64(gathered):
    _, _, groups, profile = gathered
    names = {name.rsplit("/", 1)[0] for name in profile.tensors["head_signatures-grid8"]}
    assert names == {g.name for g in groups if g.kind == "heads"}
    assert {t.dtype for t in profile.tensors["head_signatures-grid8"].values()} == {torch.float64}


@pytest.mark.parametrize("batch_size", [1, 16, 40])
def test_batches_and_padding_do_not_matter(gathered, batch_size):
    model, source, groups, profile = gathered
    again = collect(Calibration(model, groups, source, CLASSES, batch_size=batch_size), [HeadSignatures(8)])
    for name, tensor in profile.tensors["head_signatures-grid8"].items():
        torch.testing.assert_close(again["head_signatures-grid8"][name], tensor, rtol=1e-5, atol=1e-6)


def test_parts_of_the_data_merge_into_the_whole(gathered):
    model, source, groups, profile = gathered
    heads, wanted = [g for g in groups if g.kind == "heads"], HeadSignatures(8)
    halves = []
    for part in (slice(0, 21), slice(21, 40)):
        collector = SignatureCollector(wanted, tuple(heads), classes=CLASSES)
        with collector.attached(model), torch.no_grad():
            for inputs, labels in list(source.batches(1))[part]:
                collector.start_batch(OwnBatch(0, 0, inputs, labels))
                logits_of(model, inputs)
        halves.append(Profile(groups, {wanted.key: collector.tensors()}))
    for group in heads:
        whole = profile.of(wanted, group)
        merged = halves[0].of(wanted, group).merge(halves[1].of(wanted, group))
        torch.testing.assert_close(merged.mean, whole.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(merged.variance, whole.variance, rtol=0, atol=1e-6)


def test_the_model_is_left_as_it_was_also_after_an_error():
    model = bert()
    groups, source = bert_groups(model), sentences(4)
    collect(Calibration(model, groups, source, CLASSES), [HeadSignatures(4)])
    assert model.config._attn_implementation == "sdpa"
    collector = SignatureCollector(HeadSignatures(4), heads_of(groups), classes=CLASSES)
    # Token 1000 is not in the vocabulary.
    with collector.attached(model), pytest.raises(IndexError):
        model(input_ids=torch.tensor([[1000]]), attention_mask=torch.ones(1, 1, dtype=torch.int64))
    assert model.config._attn_implementation == "sdpa"
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_query_heads_that_share_a_key_are_averaged():
    maps = torch.rand(2, 6, 5, 5, dtype=torch.float64)
    found = head_maps(maps, 3)
    for h in range(3):
        torch.testing.assert_close(found[:, h], (maps[:, 2 * h] + maps[:, 2 * h + 1]) / 2)
    assert head_maps(maps, 6) is maps


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]], [[1, 1, 1], [0, 0, 0]]])
def test_padding_that_is_not_on_the_right_is_refused(mask):
    with pytest.raises(UserError, match="padding on the right"):
        real_tokens(torch.tensor(mask))


def test_a_module_without_maps_is_refused():
    layer = nn.Linear(4, 4)
    members = (Member(layer="", role="producer"), Member(layer="", role="consumer"))
    collector = SignatureCollector(
        HeadSignatures(2), (ChannelGroup("", 2, members, kind="heads"),), classes=2
    )
    collector.start_batch(OwnBatch(0, 0, torch.zeros(1, 4), torch.tensor([0])))
    with collector.attached(layer), pytest.raises(UserError, match="no attention maps of its 2 heads"):
        layer(torch.zeros(1, 4))


def check_images(model, groups, maps_of):
    """All tokens of an image count; ``maps_of`` gives the maps of each layer, ``[N, H, T, T]``."""
    images, labels = torch.rand(6, 3, 16, 16), torch.tensor([0, 1, 0, 1, 0, 1])
    collector = SignatureCollector(HeadSignatures(4), heads_of(groups), classes=2)
    collector.start_batch(OwnBatch(0, 0, images, labels))
    with collector.attached(model), torch.no_grad():
        model(images)
    profile = Profile(groups, {HeadSignatures(4).key: collector.tensors()})
    for group, maps in zip(groups, maps_of(images), strict=True):
        small = F.interpolate(maps, size=(4, 4), mode="bilinear", align_corners=False).flatten(2).double()
        found = profile.of(HeadSignatures(4), group)
        torch.testing.assert_close(found.mean[0], small[labels == 0].mean(0), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.variance[1], small[labels == 1].var(0), rtol=0, atol=1e-6)


def test_images_in_a_transformers_vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16,
        patch_size=8, num_labels=2, initializer_range=0.3,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    names = [n for n, m in model.named_modules() if type(m).__name__ == "ViTAttention"]
    assert len(names) == 2
    groups = tuple(
        ChannelGroup(n, 2, (Member(layer=f"{n}.o_proj", role="consumer", span=8),), "heads") for n in names
    )

    def maps_of(images):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            return model(images, output_attentions=True).attentions

    check_images(model, groups, maps_of)


def test_images_in_a_timm_vit():
    import timm

    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=2
    ).eval()
    groups = tuple(
        ChannelGroup(f"blocks.{i}.attn", 2, (Member(layer=f"blocks.{i}.attn.proj", role="consumer", span=8),),
                     "heads") for i in range(2)
    )  # fmt: skip

    def maps_of(images):
        seen = []
        for block in model.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda m, i, o: seen.append(o))
        with torch.no_grad():
            model(images)
        return seen

    was = [block.attn.fused_attn for block in model.blocks]

    def maps_once_restored(images):
        assert [block.attn.fused_attn for block in model.blocks] == was
        return maps_of(images)

    check_images(model, groups, maps_once_restored)


def mpnet():
    from transformers import MPNetConfig, MPNetForSequenceClassification

    config = MPNetConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=CLASSES, initializer_range=0.3,
    )  # fmt: skip
    return MPNetForSequenceClassification(config).eval()


def test_maps_that_a_module_keeps_to_itself_are_read_off_its_dropout():
    model, source = mpnet(), sentences(12, longest=6)
    group = ChannelGroup("mpnet.encoder.layer.0.attention.attn", 2, (), "heads")
    wanted = HeadSignatures(4)
    tensors = collect(Calibration(model, (group,), source, CLASSES, batch_size=1), [wanted])
    found = Profile((group,), tensors).of(wanted, group)
    rows = {c: [] for c in range(CLASSES)}
    for inputs, labels in source.batches(1):
        with torch.no_grad():
            maps = model(**inputs, output_attentions=True).attentions[0]
        n = inputs["input_ids"].shape[1]
        rows[int(labels)].append(
            torch.stack([cropped_and_interpolated(maps[0, h], n, 4).flatten() for h in range(2)])
        )
    for c in range(CLASSES):
        mean = torch.stack(rows[c]).double().mean(0)
        torch.testing.assert_close(found.mean[c], mean, rtol=0, atol=1e-6)


def test_windows_of_an_image_are_averaged():
    attention, labels = nn.Identity(), torch.tensor([0, 1, 1])
    group = ChannelGroup("", 2, (), "heads")
    collector = SignatureCollector(HeadSignatures(3), (group,), classes=2)
    maps = torch.rand(3 * 4, 2, 5, 5, dtype=torch.float64).softmax(-1)  # four windows an image
    collector.start_batch(OwnBatch(0, 0, maps, labels))
    with collector.attached(attention):
        attention(maps)
    found = Profile((group,), {"head_signatures-grid3": collector.tensors()})
    mean = resized(maps.view(3, 4, 2, 5, 5).mean(1), torch.full((3,), 5), 3).flatten(2)
    torch.testing.assert_close(found.of(HeadSignatures(3), group).mean[1], mean[1:].mean(0))


def test_maps_of_other_samples_are_refused():
    attention, group = nn.Identity(), ChannelGroup("", 2, (), "heads")
    collector = SignatureCollector(HeadSignatures(3), (group,), classes=2)
    collector.start_batch(OwnBatch(0, 0, torch.zeros(3, 1), torch.tensor([0, 1, 1])))
    with collector.attached(attention), pytest.raises(UserError, match="do not cover the 3 samples"):
        attention(torch.rand(4, 2, 5, 5).softmax(-1))


def test_other_values_of_that_shape_are_no_maps():
    attention, group = nn.Identity(), ChannelGroup("", 2, (), "heads")
    collector = SignatureCollector(HeadSignatures(3), (group,), classes=2)
    collector.start_batch(OwnBatch(0, 0, torch.zeros(2, 1), torch.tensor([0, 1])))
    with collector.attached(attention), pytest.raises(UserError, match="no attention maps"):
        attention(torch.randn(2, 2, 5, 5))
    with collector.attached(attention):
        attention((torch.zeros(2, 5, 8), torch.randn(2, 2, 5, 5), torch.eye(5).expand(2, 2, 5, 5)))
    assert float(collector.tensors()["/mean"][0].sum()) > 0
