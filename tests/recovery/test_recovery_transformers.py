"""The walk through transformers: windows of an image, tables of positions, layers that run several times."""

import copy

import pytest
import torch

import tiny_transformers as zoo
from coprune.data.dataset import in_memory
from coprune.recovery import Pair, least_squares
from coprune.tracing.forward import logits_of, part_of
from coprune.tracing.layer_graph import find_sites

pytest.importorskip("transformers")


def samples(name, count=64):
    inputs = zoo.inputs(name, samples=count, dtype=torch.float32)
    if isinstance(inputs, dict) and inputs.keys() == {"pixel_values"}:
        inputs = inputs["pixel_values"]
    return inputs, in_memory([(inputs, torch.arange(count) % zoo.CLASSES)])


@pytest.mark.parametrize(
    "name", ["bert", "albert", "llama_grouped", "vit", "swin", "torchvision_swin", "deberta", "timm"]
)
@torch.no_grad()
def test_noise_in_the_weights_is_taken_out_again(name):
    # Were a window's row laid beside another's target, or a token's beside its neighbour's, it would not be.
    teacher = zoo.transformer(name, dtype=torch.float32)
    inputs, source = samples(name)
    model = copy.deepcopy(teacher)
    sites = find_sites(teacher, part_of(inputs, slice(2)))
    generator = torch.Generator().manual_seed(0)
    for site in sites:
        weight = model.get_submodule(site.layer).weight
        weight.add_(0.5 * weight.std() * torch.randn(weight.shape, generator=generator))
    wanted = logits_of(teacher, inputs)
    before = (logits_of(model, inputs) - wanted).square().mean()
    least_squares(Pair(model, teacher, {}), source)
    after = (logits_of(model, inputs) - wanted).square().mean()
    assert len(sites) >= 7
    # Layers that run several times are solved in sweeps, which come nearer each time.
    assert after < (1e-2 if name == "albert" else 1e-6) * before


@torch.no_grad()
def test_a_layer_that_reads_a_table_of_positions_is_left_alone():
    teacher = zoo.transformer("deberta", dtype=torch.float32)
    inputs, _ = samples("deberta", 2)
    names = [site.layer for site in find_sites(teacher, inputs)]
    assert "deberta.encoder.layer.0.attention.self.pos_proj" not in names
    assert "deberta.encoder.layer.0.attention.self.in_proj" in names


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 3])
def test_places_of_all_windows_are_the_samples_own(count):
    teacher = zoo.transformer("swin", dtype=torch.float32)
    found = {s.layer: s.places for s in find_sites(teacher, samples("swin", count)[0])}
    # 8 × 8 patches in windows of 4 × 4, then 4 × 4 in one window.
    assert found["swin.encoder.layers.0.blocks.0.attention.q_proj"] == 64
    assert found["swin.encoder.layers.1.blocks.0.attention.q_proj"] == 16
    assert found["classifier"] == 1


@torch.no_grad()
def test_layers_that_run_several_times_are_solved_on_all_of_their_runs():
    teacher = zoo.transformer("albert", dtype=torch.float32)
    inputs, source = samples("albert")
    found = {s.layer.rpartition(".")[2]: s.runs for s in find_sites(teacher, part_of(inputs, slice(2)))}
    assert found["query"] == found["ffn_output"] == 2
    assert found["pooler"] == found["classifier"] == 1
    # The queries alone are wrong, and what the first run says the second reads.
    model = copy.deepcopy(teacher)
    wrong = model.albert.encoder.albert_layer_groups[0].albert_layers[0].attention.query
    wrong.weight.add_(0.3 * torch.randn(wrong.weight.shape, generator=torch.Generator().manual_seed(0)))
    wanted = logits_of(teacher, inputs)
    before = (logits_of(model, inputs) - wanted).square().mean()
    layers = least_squares(Pair(model, teacher, {}), source)
    assert len(layers) == len({done.layer for done in layers}) == len(found)
    assert (logits_of(model, inputs) - wanted).square().mean() < 0.02 * before
