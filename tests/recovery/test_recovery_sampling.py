"""The walk over texts: padding costs nothing and changes nothing."""

import copy

import pytest
import torch

import texts
from coprune.data.text import TextSource
from coprune.recovery import Pair, layer_walk, least_squares, sampling
from coprune.tracing.forward import lengths_of, part_of, trimmed


def tokens(samples=40, width=14):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, width + 1, (samples,), generator=generator)
    ids = torch.randint(4, 10, (samples, width), generator=generator)
    return TextSource.of(ids, lengths, torch.arange(samples) % 3)


def test_padding_behind_the_longest_is_cut_off():
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0]])
    inputs = {"input_ids": torch.arange(10).view(2, 5), "attention_mask": mask, "other": torch.ones(2)}
    assert lengths_of(inputs).tolist() == [2, 3]
    found = trimmed(inputs)
    assert found["input_ids"].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert found["other"].shape == (2,)
    image = torch.zeros(2, 3, 4, 4)
    assert lengths_of(image) is None
    assert trimmed(image) is image


def test_texts_that_pass_by_length_say_what_padded_ones_say(tmp_path, monkeypatch):
    from transformers import AutoModelForSequenceClassification

    folder = texts.tiny_text_model(tmp_path / "model", classes=3)
    teacher = AutoModelForSequenceClassification.from_pretrained(folder).double().eval()
    start = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    monkeypatch.setattr(layer_walk, "BATCH", 7)
    found = []
    # The second time as it is done without a mask: padded, in the order they are stored in.
    for cut, order in (
        (trimmed, sampling._by_length),
        (lambda inputs: inputs, lambda _, index, judging: index),
    ):
        monkeypatch.setattr(sampling, "trimmed", cut)
        monkeypatch.setattr(sampling, "_by_length", order)
        model = copy.deepcopy(start)
        found.append((least_squares(Pair(model, teacher, {}), tokens()), model.state_dict()))
    (short, weights), (padded, others) = found
    assert any(layer.changed for layer in short)
    for a, b in zip(short, padded, strict=True):
        assert (a.layer, a.changed) == (b.layer, b.changed)
        assert a.after == pytest.approx(b.after, rel=1e-6)
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=1e-6, atol=1e-8)


def test_batches_have_texts_of_about_one_length_and_judges_stay_last():
    inputs = next(iter(tokens(samples=40).take(torch.randperm(40)).batches(40)))[0]
    inputs = part_of(inputs, torch.randperm(40))
    lengths, some = lengths_of(inputs), torch.randperm(40)[:30]
    order = sampling._by_length(inputs, some, judging=5)
    for part in (slice(0, 25), slice(25, 30)):
        assert sorted(order[part].tolist()) == sorted(some[part].tolist())
        assert lengths[order[part]].tolist() == sorted(lengths[some[part]].tolist())
    assert torch.equal(sampling._by_length(torch.zeros(40, 1, 2, 2), some, judging=2), some)
