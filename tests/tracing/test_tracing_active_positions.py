"""Where it is worth while to look: tokens that can reach the prediction."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import texts
from coprune.tracing.active_positions import _first, _last, active_positions, learn_active_positions
from coprune.tracing.forward import logits_of
from coprune.tracing.patches import draw_valid


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import AutoModelForSequenceClassification

    folder = texts.tiny_text_model(tmp_path_factory.mktemp("reach") / "model", classes=3)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def sentences(*lengths):
    ids = torch.randint(4, 10, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def test_padding_has_no_say_and_behind_the_last_layer_only_the_first_token_has(encoder):
    inputs = sentences(3, 7, 5)
    first, last = (f"bert.encoder.layer.{i}.output.dense" for i in (0, 1))
    values = "bert.encoder.layer.1.attention.self.value"
    found = active_positions(encoder, inputs, [first, last, values, "classifier"])
    assert torch.equal(found[first], inputs["attention_mask"].bool())
    assert torch.equal(found[values], inputs["attention_mask"].bool())
    assert found[last].sum(1).tolist() == [1, 1, 1]
    assert found[last][:, 0].all()
    # One place a sample: there is nothing to choose.
    assert "classifier" not in found


def test_a_place_without_a_say_can_be_changed_freely(encoder):
    inputs, layer = sentences(3, 6), encoder.bert.encoder.layer[0].output.dense
    (found,) = active_positions(encoder, inputs, ["bert.encoder.layer.0.output.dense"]).values()

    @torch.no_grad()
    def with_noise(where):
        handle = layer.register_forward_hook(lambda _, __, o: o + where.unsqueeze(-1) * torch.randn(o.shape))
        try:
            return logits_of(encoder, inputs)
        finally:
            handle.remove()

    with torch.no_grad():
        plain = logits_of(encoder, inputs)
    torch.testing.assert_close(with_noise(~found), plain)
    assert not torch.allclose(with_noise(found), plain)


def test_of_a_frozen_model_too_and_gradients_are_left_alone(encoder):
    inputs, name = sentences(4, 2), "bert.encoder.layer.1.intermediate.dense"
    wanted = active_positions(encoder, inputs, [name])[name]
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    try:
        assert torch.equal(active_positions(encoder, inputs, [name])[name], wanted)
    finally:
        for parameter in encoder.parameters():
            parameter.requires_grad_(True)
    assert all(p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("seen", [(3, 7, 5), (6, 6)])
def test_a_few_samples_tell_what_gradients_would_tell_of_all(encoder, seen):
    names = [n for n, m in encoder.named_modules() if isinstance(m, nn.Linear)]
    rule = learn_active_positions(encoder, sentences(*seen), names)
    assert all(pattern is not None for pattern in rule.patterns.values())
    others = sentences(2, 9, 4, 8, 3)
    wanted = active_positions(encoder, others, names)
    found = rule.of(others)
    assert found.keys() == wanted.keys()
    assert len(found) > 8
    for name, places in wanted.items():
        assert torch.equal(found[name], places), name


def test_a_layer_of_which_no_usual_pattern_holds_is_told_by_gradients():
    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.layer(x)[:, 1])

    net, x = Second().eval(), torch.randn(5, 3, 4)
    rule = learn_active_positions(net, x[:2], ["layer", "last"])
    assert rule.patterns == {"layer": None}
    assert rule.of(x)["layer"].tolist() == [[False, True, False]] * 5


def test_the_last_token_of_a_padded_sentence():
    mask = sentences(3, 7, 5)["attention_mask"].bool()
    real = _last(mask)
    assert real.nonzero().tolist() == [[0, 2], [1, 6], [2, 4]]
    assert _first(mask).nonzero().tolist() == [[0, 0], [1, 0], [2, 0]]


def test_convolutions_are_looked_at_everywhere():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    assert active_positions(net, torch.zeros(2, 1, 4, 4), ["0", "2"]) == {}


@pytest.mark.parametrize("wanted", [1, 3, 50])
def test_drawn_places_are_valid_and_as_many_for_every_sample(wanted):
    valid = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 0, 1]], dtype=torch.bool)
    at = draw_valid("layer", valid, wanted=wanted, seed=0)
    assert at.shape == (3, min(wanted, 5))
    assert valid.gather(1, at).all()
    for row, places in zip(valid, at, strict=True):
        # No place twice before every valid one was taken.
        few = min(len(places), int(row.sum()))
        assert len(set(places[:few].tolist())) == few
    assert torch.equal(at, draw_valid("layer", valid, wanted=wanted, seed=0))


def test_outputs_whose_sum_never_changes_still_depend_on_their_tokens():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            scores = self.layer(x).mean(1)
            return scores - scores.mean(1, keepdim=True)

    net, x = Shares().eval(), torch.randn(2, 5, 4)
    assert active_positions(net, x, ["layer"])["layer"].all()
