"""What consumers read, against loops over all places; padding and tokens without effect do not count."""

import pytest
import torch

import tiny
from coprune.data import LoaderSource
from coprune.groups import find_units
from coprune.layers import filters
from coprune.statistics import Calibration, InputMoments, Profile, collect
from coprune.task import TASKS
from tiny_transformers import inputs, transformer


def profiled(model, groups, source, batch_size=7, task="classification"):
    wanted = InputMoments()
    calibration = Calibration(model, groups, source, 3, batch_size=batch_size, task=TASKS[task])
    tensors = collect(calibration, [wanted])
    return Profile(groups, tensors)


def seen(model, layer, x):
    """What a layer reads, ``[…]`` as it comes."""
    read = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, i: read.append(i[0].clone()))
    with torch.no_grad():
        model(**x) if isinstance(x, dict) else model(x)
    handle.remove()
    return read[0].double()


def check(found, rows, weight):
    """Against ``[M, U, S]`` rows and a ``[O, U, S, …]`` weight."""
    assert found.count == len(rows)
    torch.testing.assert_close(found.mean, rows.mean(0))
    torch.testing.assert_close(found.variance, rows.var(0))
    torch.testing.assert_close(found.norm, rows.norm(dim=0))
    weight = weight.double().flatten(3) if weight.ndim > 3 else weight.double().unsqueeze(3)
    torch.testing.assert_close(found.weight_l1, weight.abs().sum((0, 3)))
    torch.testing.assert_close(found.weight_square, weight.square().sum((0, 3)))


def test_of_convolutions_all_pixels_count_and_of_flattened_maps_each_by_itself():
    net = tiny.randomise(tiny.Flattened()).double()
    source = tiny.source(24, classes=3, kind=tiny.DoubleSource)
    x, _ = next(source.batches(24))
    groups = {g.name: g for g in find_units(net, x[:1]).groups}
    (found,) = profiled(net, tuple(groups.values()), source).of(InputMoments(), groups["conv2"])
    check(found, seen(net, "fc1", x).view(24, 6, 4), net.fc1.weight.detach().view(10, 6, 4))
    net = tiny.network("resnet20").double()
    group = find_units(net, x[:1]).groups[0]
    (reader,) = (m.layer for m in group.of_role("consumer"))
    (found,) = profiled(net, (group,), source).of(InputMoments(), group)
    pixels = seen(net, reader, x).movedim(1, -1).flatten(0, -2).unsqueeze(2)
    check(found, pixels, net.get_submodule(reader).weight.detach().unsqueeze(2))


@pytest.mark.parametrize("batch_size", [1, 5, 6])
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("llama_grouped", "classification"),
        ("bert", "classification"),
        ("gpt2", "text-generation"),
        ("phi3", "text-generation"),
        ("bert_tagger", "token-classification"),
        ("bert_base", "feature-extraction"),
    ],
)
def test_padding_does_not_count(name, task, batch_size):
    model, x = transformer(name), inputs(name, samples=6)
    source = LoaderSource([(x, torch.arange(6) % 3)], 6)
    groups = find_units(model, x).groups
    profile = profiled(model, groups, source, batch_size, task)
    real = x["attention_mask"].bool()
    assert int((~real).sum()) == 2
    for group in groups[:2]:
        (found,) = profile.of(InputMoments(), group)
        (consumer,) = group.of_role("consumer")
        layer = model.get_submodule(consumer.layer)
        rows = seen(model, consumer.layer, x)[real].unflatten(-1, (group.size, consumer.span))
        check(found, rows, filters(layer).detach().unflatten(1, (group.size, consumer.span)))


def test_in_the_last_layer_of_a_classifier_only_what_it_classifies_counts():
    model, x = transformer("bert"), inputs("bert", samples=6)
    groups = find_units(model, x).groups
    (found,) = profiled(model, groups, LoaderSource([(x, torch.arange(6) % 3)], 6)).of(
        InputMoments(), groups[-1]
    )
    assert found.count == 6


def test_a_layer_that_several_groups_are_read_by_is_seen_once():
    net = tiny.randomise(tiny.Perceptron()).double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups
    tensors = profiled(net, (*groups, *groups), tiny.source(24, classes=3, kind=tiny.DoubleSource)).tensors
    assert float(tensors["input_moments"]["fc3/count"]) == 24
