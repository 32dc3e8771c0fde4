"""Every form of batch as inputs and targets, as the model's forward pass says; what is none in one line."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from coprune.data.collect import collect, has_class_numbers
from coprune.data.reads import Reads
from coprune.errors import UserError
from coprune.tracing.forward import check_takes


class One(nn.Module):
    def forward(self, x):
        return x


class Two(nn.Module):
    def forward(self, left, right):
        return left + right


class Maybe(nn.Module):
    def forward(self, x, extra=None, mask=None):
        return x


class Named(nn.Module):
    """As of 🤗: everything by name, targets too."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, start_positions=None, **more):
        return input_ids


class Detector(nn.Module):
    def forward(self, images, targets=None):
        return images


class Any(nn.Module):
    def forward(self, *args, **kwargs):
        return args


class Labelled(nn.Module):
    """Its labels are an input."""

    def forward(self, x, labels):
        return x


X, Z, Y = torch.rand(4, 3, 8, 8), torch.rand(4, 5), torch.rand(4, 2)
IDS, MASK = torch.arange(24).view(4, 6), torch.ones(4, 6, dtype=torch.int64)
IMAGES = [torch.rand(3, 8 + i, 9) for i in range(4)]
BOXES = [{"boxes": torch.rand(i, 4), "labels": torch.arange(i)} for i in range(4)]
TEXT = {"input_ids": IDS, "attention_mask": MASK}


@dataclass
class Struct:
    x: Tensor
    mask: Tensor


Pair = namedtuple("Pair", "image target")

FORMS = {
    "x": (One, X, (X, None)),
    "[x]": (One, [X], (X, None)),
    "(x,)": (One, (X,), (X, None)),
    "(x, None)": (One, (X, None), (X, None)),
    "(x, y)": (One, (X, Y), (X, Y)),
    "[x, y]": (One, [X, Y], (X, Y)),
    "namedtuple": (One, Pair(X, Y), (X, Y)),
    "array": (One, (X.numpy(), Y.numpy()), (X, Y)),
    "numbers": (One, (X, [0.5, 1.5, 2, 3]), (X, torch.tensor([0.5, 1.5, 2, 3]))),
    "(x, y1, y2)": (One, (X, Y, Z), (X, (Y, Z))),
    "(x, (y1, y2))": (One, (X, (Y, Z)), (X, (Y, Z))),
    "(x, {y})": (One, (X, {"a": Y, "b": Z}), (X, {"a": Y, "b": Z})),
    "(x1, x2)": (Two, (X, Z), ((X, Z), None)),
    "(x1, x2, y)": (Two, (X, Z, Y), ((X, Z), Y)),
    "(x1, x2, y1, y2)": (Two, (X, Z, Y, X), ((X, Z), (Y, X))),
    "((x1, x2), y)": (Two, ((X, Z), Y), ((X, Z), Y)),
    "[[x1, x2], y]": (Two, [[X, Z], Y], ((X, Z), Y)),
    "optional (x, y)": (Maybe, (X, Y), (X, Y)),
    "optional (x1, x2, y)": (Maybe, (X, Z, Y), ((X, Z), Y)),
    "optional ((x1, x2), y)": (Maybe, ((X, Z), Y), ((X, Z), Y)),
    "((x,), y)": (One, ((X,), Y), (X, Y)),
    "unknown (x1, x2, y)": (Any, (X, Z, Y), ((X, Z), Y)),
    "unknown ((x1, x2), y)": (Any, ((X, Z), Y), ((X, Z), Y)),
    "unknown images": (Any, (IMAGES, BOXES), (IMAGES, BOXES)),
    "images": (Detector, (IMAGES, BOXES), (IMAGES, BOXES)),
    "zipped": (Detector, (tuple(IMAGES), tuple(BOXES)), (IMAGES, BOXES)),
    "images alone": (Detector, (IMAGES, None), (IMAGES, None)),
    "one image": (Detector, ([IMAGES[0]], [BOXES[0]]), ([IMAGES[0]], [BOXES[0]])),
    "lists by name": (
        Detector,
        (IMAGES, {"boxes": [b["boxes"] for b in BOXES], "area": Y}),
        (IMAGES, [{"boxes": b["boxes"], "area": y} for b, y in zip(BOXES, Y, strict=True)]),
    ),
    "boxes of a stack": (Detector, (X, BOXES), (X, BOXES)),
    "texts as targets": (One, (X, ["a", "b", "c", "d"]), (X, ["a", "b", "c", "d"])),
    "tokens": (Named, TEXT, (TEXT, None)),
    "tokens, labels": (Named, {**TEXT, "labels": IDS}, (TEXT, IDS)),
    "tokens, None": (Named, {**TEXT, "labels": None}, (TEXT, None)),
    "a mapping": (Named, UserDict({**TEXT, "labels": IDS}), (TEXT, IDS)),
    "tokens, answers": (
        Named,
        {**TEXT, "start_positions": IDS[:, 0], "end_positions": IDS[:, 1], "id": ["a"] * 4},
        (TEXT, {"start_positions": IDS[:, 0], "end_positions": IDS[:, 1]}),
    ),
    "tokens, numbered labels": (
        Named, {**TEXT, "labels_a": Y, "labels_b": Z}, (TEXT, {"labels_a": Y, "labels_b": Z}),
    ),
    "tokens, what it does not take": (Named, {**TEXT, "score": Y}, (TEXT, Y)),
    "tokens, labels and more": (Named, {**TEXT, "labels": IDS, "idx": Y}, (TEXT, IDS)),
    "named for another model": (One, {"image": X, "mask": Y}, (X, Y)),
    "named in order": (One, {"low": X, "high": Z}, (X, Z)),
    "named, of two": (Two, {"a": X, "b": Z, "target": Y}, ((X, Z), Y)),
    "named, mask taken": (Maybe, {"x": X, "mask": Y}, ({"x": X, "mask": Y}, None)),
    "named, labels needed": (Labelled, {"x": X, "labels": Y}, ({"x": X, "labels": Y}, None)),
    "named images": (Any, {"pixel_values": X, "labels": Y}, (X, Y)),
    "a dataclass": (One, Struct(X, Y), ({"x": X}, Y)),
    "an option": (Named, {**TEXT, "labels": IDS}, (TEXT, IDS)),
}  # fmt: skip


def same(one, other) -> bool:
    a, b = tree_flatten(one), tree_flatten(other)
    return a[1] == b[1] and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(a[0], b[0], strict=True)
    )


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    kind, batch, wanted = FORMS[form]
    found = collect(batch, Reads.of(kind()))
    assert same(found, wanted), tree_map(lambda t: getattr(t, "shape", t), found)


def test_what_wraps_a_model_is_looked_through():
    plain = Reads.of(Two())
    assert Reads.of(nn.DataParallel(Two())) == plain
    assert Reads.of(torch.compile(Two())) == plain
    assert (plain.positional, plain.most, plain.names) == (2, 2, {"left", "right"})
    assert Reads.of(torch.jit.script(One())).positional in (None, 1)


@pytest.mark.parametrize(
    ("kind", "batch", "words"),
    [
        (Two, [X], "the model takes 2 inputs"),
        (Two, X, r"the model takes 2 inputs"),
        (One, (X, Y[:3]), "4 samples but 3 targets; give one a sample"),
        (One, (X, (Y, Z[:2])), "4 samples but 2 targets"),
        (One, (X, 3.0), "a single label, so this is a sample and no batch"),
        (Two, (X, Z[:2], Y), "inputs of 2 and 4 samples in one batch"),
        (One, (X[:0], Y[:0]), "no samples; drop empty batches"),
        (One, torch.tensor(3.0), "inputs of no samples"),
        (One, ["a", "b"], "inputs: a str, and no tensor"),
        (Two, {"left": X, "middle": Z}, r"\(left, middle\) without 'right', which the model needs"),
        (
            Two,
            {"a": X, "b": Z, "c": Z, "labels": Y},
            "labels.*, none of which .* .left, right.",
        ),
        (Named, {**TEXT, "input_ids": ["a"] * 4}, "input .input_ids.: a list of 4, and no tensor; drop it"),
        (Detector, (IMAGES, BOXES[:2]), "4 samples but"),
    ],
)
def test_what_is_no_batch_is_said_in_one_line(kind, batch, words):
    with pytest.raises(UserError, match=words) as said:
        collect(batch, Reads.of(kind()))
    assert "\n" not in str(said.value)


def test_several_inputs_of_a_classifier():
    classes = torch.arange(4)
    for batch in ((X, Z, classes), ((X, Z), classes), [[X, Z], classes.tolist()]):
        assert same(collect(batch, Reads.of(Two(), labelled=True)), ((X, Z), classes))
    with pytest.raises(UserError, match="labels are class numbers"):
        collect((X, Z), Reads.of(Two(), labelled=True))


def test_reading_of_ones_own():
    own = Reads.of(Two(), own=lambda batch: ((batch["a"], batch["b"]), {"y": batch["y"]}))
    assert same(collect({"a": X, "b": Z, "y": Y}, own), ((X, Z), {"y": Y}))
    with pytest.raises(UserError, match=r"collect= returns a Tensor .*; return \(inputs, targets\)"):
        collect(X, Reads.of(One(), own=lambda batch: batch))


def test_class_numbers_are_found_out():
    classes = torch.arange(4)
    for batch in ((X, classes), {**TEXT, "labels": classes}, (X, classes.tolist()), (X, classes > 1)):
        assert has_class_numbers(batch)
    for batch in (X, (X, Y), (X, None), {**TEXT, "labels": IDS}, TEXT, (IMAGES, BOXES), (X, classes / 3), 7):
        assert not has_class_numbers(batch)
    # The second of two inputs, such as a time step, is no label; behind them stands one.
    assert not has_class_numbers((X, classes), Reads.of(Two()))
    assert has_class_numbers((X, Z, classes), Reads.of(Two()))
    assert has_class_numbers({"a": X, "b": classes}, Reads(own=lambda batch: (batch["a"], batch["b"])))


class Shifting(One):
    """As a 🤗 model that makes a text of something, of which the decoder starts with 7."""

    config = SimpleNamespace(is_encoder_decoder=True, decoder_start_token_id=7, pad_token_id=1)

    def forward(self, input_ids, decoder_input_ids=None, labels=None):
        return input_ids

    def can_generate(self):
        return True


def test_what_a_decoder_reads_is_made_of_the_labels():
    labels = torch.tensor([[5, 6, 2], [5, 2, -100]])
    ids = torch.ones(2, 4, dtype=torch.long)
    due = torch.tensor([[7, 5, 6], [7, 5, 2]])
    reads = Reads.of(Shifting())
    for batch in ({"input_ids": ids, "labels": labels}, ({"input_ids": ids}, labels)):
        assert same(collect(batch, reads), ({"input_ids": ids, "decoder_input_ids": due}, labels))
    given = {"input_ids": ids, "decoder_input_ids": due + 1}
    assert same(collect(given, reads), (given, None))
    # BART goes without: it shifts what its encoder reads.
    assert same(collect({"input_ids": ids}, reads), ({"input_ids": ids}, None))
    with pytest.raises(UserError, match="labels do not make what the decoder reads: "):
        collect({"input_ids": ids, "labels": torch.tensor([1, 0])}, reads)


_TINY = {"vocab_size": 20, "d_model": 16, "pad_token_id": 0, "decoder_start_token_id": 2}
_LAYERS = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
_MEL = {"num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 8, "bos_token_id": 2}
SHIFTING = {
    "T5": {"d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
    "Bart": _LAYERS,
    "Whisper": {**_LAYERS, **_MEL, "eos_token_id": 3},
}


@pytest.mark.parametrize("name", SHIFTING)
def test_a_decoder_reads_what_the_model_itself_would_give_it(name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**_TINY, **SHIFTING[name])
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    labels = torch.tensor([[5, 6, 4], [7, 3, -100]])
    read = {"input_features": torch.randn(2, 8, 16)} if name == "Whisper" else {"input_ids": labels + 101}
    read = {key: value % 20 if value.dtype == torch.int64 else value for key, value in read.items()}
    inputs, targets = collect({**read, "labels": labels}, Reads.of(model))
    assert torch.equal(targets, labels)
    torch.testing.assert_close(model(**inputs).logits, model(**read, labels=labels).logits)
    alone, _ = collect(read, Reads.of(model))
    if name == "Bart":
        assert check_takes(model, alone).logits.shape == (2, 3, 20)
    else:
        with pytest.raises(
            UserError, match="its decoder reads 'decoder_input_ids', which are made of 'labels'"
        ):
            check_takes(model, alone)
