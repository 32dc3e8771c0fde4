"""Exported models say what the model says, for sizes that they were not made with; defects are one line."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import tiny
from coprune.errors import UserError
from coprune.export import FORMATS, check_against, samples_of_sizes, traced_program
from coprune.export.check import SIZES, TOLERANCE
from coprune.groups import find_units
from coprune.surgery import cut
from coprune.tracing.forward import logits_of, part_of, samples_in
from tiny_transformers import inputs, transformer, uneven

ort = pytest.importorskip("onnxruntime")


def pruned_cnn():
    model, example = tiny.network("resnet20", width=4), torch.zeros(1, 1, 12, 12)
    groups = find_units(model, example).groups
    return cut(model, uneven(groups)), torch.randn(5, 1, 12, 12)


def pruned_bert():
    pytest.importorskip("transformers")
    model, x = transformer("bert", dtype=torch.float32), inputs("bert", samples=4, dtype=torch.float32)
    model = cut(model, uneven(find_units(model, x).groups))
    mask = (torch.arange(x["input_ids"].shape[1]) < torch.tensor([[8], [3], [5], [7]])).long()
    return model, {**x, "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}


@pytest.fixture(scope="module", params=["cnn", "bert"])
def case(request):
    torch.manual_seed(0)
    model, x = pruned_cnn() if request.param == "cnn" else pruned_bert()
    return model, x, traced_program(model, part_of(x, [0, 1]))


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_pruned_model_says_the_same_in_every_size(case, kind):
    model, x, program = case
    how = FORMATS[kind]
    content = how.content(program)
    run = how.runner(content)
    assert check_against(model, run, samples_of_sizes(x), reader=how.reader) <= TOLERANCE / 10
    # And once by hand, on a size that the check has not seen.
    eleven = part_of(x, [i % samples_in(x) for i in range(11)])
    with torch.no_grad():
        assert torch.allclose(run(eleven)[0], logits_of(model, eleven), atol=1e-4)
    if kind == "onnx":
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        shapes = {entry.name: entry.shape for entry in session.get_inputs()}
        wanted = {"images": ["batch", 1, 12, 12]}
        if isinstance(x, dict):
            wanted = {name: ["batch", "sequence"] for name in x}
        assert shapes == wanted
        assert [entry.name for entry in session.get_outputs()] == ["logits"]
    else:
        assert torch.export.load(io.BytesIO(content)).module() is not None


@dataclass
class Found:
    boxes: torch.Tensor
    maps: list


class Trees(nn.Module):
    """Two arguments, one of them a dict; a dataclass, what is no tensor, and numbers in a tuple."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, x, more):
        maps = self.first(x) + self.second(more["y"]) * more["times"]
        return Found(maps.tanh(), [maps, {"sum": maps.sum(1)}, None]), "said", maps.abs()


class TimeStep(nn.Module):
    """Named inputs that are no tokens, one of them of a single axis."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, sample, timestep):
        return {"sample": self.conv(sample) * timestep[:, None, None, None].sin()}


def tokens_of(name):
    model, x = transformer(name, dtype=torch.float32), inputs(name, samples=4, dtype=torch.float32)
    return cut(model, uneven(find_units(model, x).groups)), x


TREES = {
    "trees": lambda: (Trees(), (torch.rand(4, 3), {"y": torch.rand(4, 2), "times": 2.0})),
    "time": lambda: (TimeStep(), {"sample": torch.rand(4, 1, 6, 6), "timestep": torch.arange(4.0)}),
    "llama": lambda: tokens_of("llama"),
    "bart": lambda: tokens_of("bart"),
}
NAMES = {
    "trees": (
        ["input_0", "input_1.y"],
        ["output_0.boxes", "output_0.maps.0", "output_0.maps.1.sum", "output_2"],
    ),
    "time": (["sample", "timestep"], ["output_sample"]),
    "llama": (["input_ids", "attention_mask"], ["logits"]),
}


@pytest.mark.parametrize("kind", sorted(FORMATS))
@pytest.mark.parametrize("name", TREES)
def test_trees_of_inputs_and_outputs_become_names(name, kind):
    torch.manual_seed(0)
    model, x = TREES[name]()
    traced = traced_program(model.eval(), part(x, 2))
    if name in NAMES:
        assert (list(traced.reads), list(traced.hands_back)) == NAMES[name]
    how = FORMATS[kind]
    content = how.content(traced)
    run = how.runner(content)
    batches = [part(x, size) for size in (1, 2, 3, 4)]
    assert check_against(model, run, batches, reader=how.reader) <= TOLERANCE / 10
    if kind == "onnx":
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        assert [entry.name for entry in session.get_outputs()] == list(traced.hands_back)
        assert {entry.shape[0] for entry in session.get_inputs()} == {"batch"}


def part(x, size):
    return tree_map(lambda leaf: leaf[:size] if isinstance(leaf, torch.Tensor) else leaf, x)


def test_an_output_without_a_name_is_called_what_it_is():
    traced = traced_program(nn.Flatten(), torch.ones(2, 3), alone="output")
    assert traced.hands_back == ("output",)


def test_a_list_of_samples_has_no_free_number():
    with pytest.raises(UserError, match="reads a list of samples"):
        traced_program(nn.Identity(), [torch.ones(3, 3), torch.ones(3, 4)])


def test_one_of_several_outputs_that_differs_is_named():
    class Two(nn.Module):
        def forward(self, x):
            return {"a": x, "b": x}

    with pytest.raises(UserError, match=r"differ by .* of b on 2 samples"):
        check_against(Two(), lambda x: [x, x + 1], [torch.ones(2, 3)], reader="It")


def test_exporting_changes_nothing(case):
    model, x, _ = case
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    traced_program(model, part_of(x, [0, 1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training


class OfTwo(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)


class OfValues(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("model", [OfTwo(), OfValues()])
def test_what_cannot_be_traced_is_one_line(model):
    with pytest.raises(UserError, match="cannot be exported") as caught:
        traced_program(model, torch.ones(2, 3))
    assert "\n" not in str(caught.value)


def test_one_sample_is_not_enough():
    with pytest.raises(ValueError, match="give 2"):
        traced_program(nn.Flatten(), torch.ones(1, 3))


def test_batches_are_as_wide_as_their_longest():
    mask = (torch.arange(6) < torch.tensor([[6], [2], [3], [1]])).long()
    batches = samples_of_sizes({"input_ids": torch.arange(24).view(4, 6), "attention_mask": mask})
    # Round and round: sample 0; 1, 2; 3, 0, 1; 2, 3, 0, …
    assert [samples_in(batch) for batch in batches] == list(SIZES)
    assert [batch["input_ids"].shape[1] for batch in batches] == [6, 3, 6, 6]
    assert batches[1]["input_ids"].tolist() == [[6, 7, 8], [12, 13, 14]]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda x: [x + 1.5e-4], "differ by 1.5e-04"),
        (lambda x: [x * float("nan")], "differ by nan"),
        (lambda x: [x, x], "cannot run the exported model on 1 samples"),
        (lambda x: [x[:, :1]], r"gives \[1, 1\]"),
        (lambda x: x.no_such_thing, "cannot run the exported model on 1 samples"),
    ],
)
def test_a_difference_is_refused(run, words):
    x = torch.rand(4, 3)
    with pytest.raises(UserError, match=words):
        check_against(nn.Identity(), run, samples_of_sizes(x), reader="It")


def test_the_tolerance_is_relative_to_large_logits():
    x = torch.tensor([[1000.0, 0.0]])
    assert check_against(nn.Identity(), lambda x: [x + 0.05], [x], reader="It") == pytest.approx(
        5e-5, rel=1e-2
    )
    with pytest.raises(UserError):
        check_against(nn.Identity(), lambda x: [x + 0.11], [x], reader="It")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_one_line(monkeypatch, missing):
    x = torch.ones(2, 3)
    program = traced_program(nn.Flatten(), x)
    monkeypatch.setitem(sys.modules, missing, None)

    def attempt():
        if missing == "onnxruntime":
            return FORMATS["onnx"].runner(b"")
        return FORMATS["onnx"].content(program)

    with pytest.raises(UserError, match=r"pip install coprune\[export\]") as caught:
        attempt()
    assert "\n" not in str(caught.value)


def test_foreign_bytes_are_one_line():
    with pytest.raises(UserError, match="ONNX Runtime refuses"):
        FORMATS["onnx"].runner(b"not a model")
