"""Texts as tokens: sorted, cut to the longest of a batch, a pure function of seed and epoch; by hand."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import texts
from coprune.data import LoaderSource, TextSource, limited, load_data, split_source
from coprune.data.dataset import in_memory
from coprune.data.text import Texts
from coprune.data.tokenizer import longest_text, open_tokenizer, tokenise
from coprune.errors import UserError

lengths_of_texts = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def numbered(lengths, types=False, classes=3):
    """Every token of sample i, in the order given, is 100 + i: a batch tells which samples it holds."""
    lengths = torch.tensor(lengths)
    ids = (100 + torch.arange(len(lengths))).unsqueeze(1).expand(-1, int(lengths.max()) + 2).contiguous()
    return TextSource.of(
        ids, lengths, torch.arange(len(lengths)) % classes, pad=7, types=ids % 2 if types else None
    )


def held(batches):
    return [(x["input_ids"][:, 0] - 100).tolist() for x, _ in batches]


def tokens(source):
    """What is in a source, in no order: the real tokens of every sample and its label."""
    return sorted(
        (row[:n].tolist(), int(label))
        for row, n, label in zip(source.ids, source.lengths.tolist(), source.labels, strict=True)
    )


@given(lengths_of_texts, st.integers(1, 20), st.booleans())
def test_batches_hold_every_sample_once_and_are_cut_to_their_longest(lengths, batch_size, types):
    source = numbered(lengths, types)
    seen = []
    for x, y in source.batches(batch_size):
        mask = x["attention_mask"]
        assert x.keys() == {"input_ids", "attention_mask"} | ({"token_type_ids"} if types else set())
        assert all(t.shape == mask.shape and t.dtype == torch.int64 for t in x.values())
        assert mask.shape[1] == mask.sum(1).max()
        assert (mask.diff(dim=1) <= 0).all()
        assert (x["input_ids"][mask == 0] == 7).all()
        ids = (x["input_ids"][:, 0] - 100).tolist()
        assert mask.sum(1).tolist() == [lengths[i] for i in ids]
        assert y.tolist() == [i % 3 for i in ids]
        if types:
            assert (x["token_type_ids"] == (x["input_ids"] % 2) * mask).all()
        seen += ids
    # The longest first, the first of equals first.
    assert seen == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@given(lengths_of_texts, st.integers(1, 20), st.integers(0, 3), st.sampled_from([0.01, 0.3, 1.0]))
def test_an_epoch_is_a_pure_function_and_can_be_continued(lengths, batch_size, epoch, fraction):
    source = numbered(lengths)
    args = {"seed": 5, "epoch": epoch, "fraction": fraction}
    whole = held(source.epoch(batch_size, **args))
    wanted = max(1, round(fraction * len(lengths)))
    assert len(whole) == source.steps(batch_size, fraction) == math.ceil(wanted / batch_size)
    drawn = [i for batch in whole for i in batch]
    assert len(drawn) == wanted == len(set(drawn))
    for skip in range(len(whole) + 1):
        assert held(source.epoch(batch_size, skip=skip, **args)) == whole[skip:]


@given(lengths_of_texts, st.integers(1, 20), st.integers(0, 3))
def test_recombined_texts_are_the_beginning_of_one_and_the_end_of_another_of_their_batch(
    lengths, batch_size, epoch
):
    place = torch.arange(max(lengths)).expand(len(lengths), -1)
    ids = 1000 * (1 + torch.arange(len(lengths))).unsqueeze(1) + place  # whose token it is, and which
    source = TextSource.of(ids.contiguous(), torch.tensor(lengths), None, pad=7, types=ids % 2)
    mixed = dataclasses.replace(source, recombined=0.7)
    passes = (texts.epoch(batch_size, seed=1, epoch=epoch) for texts in (source, mixed))
    for (plain, _), (made, _) in zip(*passes, strict=True):
        shown, sizes = set(), plain["attention_mask"].sum(1)
        of = {int(row[0]) // 1000: int(n) for row, n in zip(plain["input_ids"], sizes, strict=True)}
        assert (made["input_ids"][made["attention_mask"] == 0] == 7).all()
        assert torch.equal(made["token_type_ids"], made["input_ids"] % 2 * made["attention_mask"])
        for row, first, n in zip(
            made["input_ids"], plain["input_ids"], made["attention_mask"].sum(1).tolist(), strict=True
        ):
            texts, places = (row[:n] // 1000).tolist(), (row[:n] % 1000).tolist()
            assert row[0] == first[0]
            assert places[-1] == of[texts[-1]] - 1
            jumps = [i for i in range(1, n) if texts[i] != texts[i - 1]]
            assert len(jumps) <= 1
            assert all(places[i] == places[i - 1] + 1 for i in range(1, n) if i not in jumps)
            shown.update(texts)
        assert shown <= of.keys()
    # Nothing else draws: batches that judge are whole texts.
    for (plain, _), (made, _) in zip(source.batches(batch_size), mixed.batches(batch_size), strict=True):
        assert all(torch.equal(plain[key], made[key]) for key in plain)


def test_as_many_texts_as_asked_are_recombined_and_others_in_every_pass():
    ids = 100 * (1 + torch.arange(400)).unsqueeze(1) + torch.arange(20)
    source = TextSource.of(ids, torch.full((400,), 20), None, recombined=0.5)

    def made(epoch):
        rows = torch.cat([x["input_ids"] for x, _ in source.epoch(40, seed=0, epoch=epoch)])
        return (rows // 100 != rows[:, :1] // 100).any(1), rows

    (first, rows), (second, _) = made(0), made(1)
    assert 0.4 < first.float().mean() < 0.55
    assert not torch.equal(first, second)
    assert torch.equal(made(0)[1], rows)


def test_an_epoch_pads_little_and_differs_from_the_next():
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 60, (2000,), generator=draw).tolist()
    source = numbered(lengths)
    batches = [x["attention_mask"] for x, _ in source.epoch(16, seed=0, epoch=0)]
    padding = 1 - sum(int(m.sum()) for m in batches) / sum(m.numel() for m in batches)
    assert padding < 0.05  # shuffled without buckets it is 45 %
    widths = [m.shape[1] for m in batches]
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)
    orders = [held(source.epoch(16, seed=s, epoch=e)) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2]
    # A batch is not always made of the same samples.
    assert {frozenset(b) for b in orders[0]}.isdisjoint({frozenset(b) for b in orders[1]})


@given(lengths_of_texts, st.data())
def test_taking_keeps_samples_and_order_and_the_same_samples_have_one_fingerprint(lengths, data):
    source = numbered(lengths, types=True)
    index = torch.tensor(data.draw(st.permutations(range(len(lengths)))))
    again = source.take(index)
    assert tokens(again) == tokens(source)
    assert torch.equal(again.lengths, source.lengths)
    part = source.take(index[: max(1, len(index) // 2)])
    assert part.input_shape == (int(part.lengths.max()),) == part.ids.shape[1:]
    assert source.take(torch.arange(len(lengths))).fingerprint() == source.fingerprint()


def test_what_lies_behind_a_text_does_not_change_the_fingerprint_but_all_else_does():
    ids, lengths, labels = torch.tensor([[1, 2, 3], [4, 5, 9]]), torch.tensor([3, 2]), torch.tensor([0, 1])
    base = TextSource.of(ids, lengths, labels).fingerprint()
    other = ids.clone()
    other[1, 2] = 8
    assert TextSource.of(other, lengths, labels).fingerprint() == base
    other[0, 0] = 8
    changed = [
        TextSource.of(other, lengths, labels),
        TextSource.of(ids, torch.tensor([3, 3]), labels),
        TextSource.of(ids, lengths, labels.flip(0)),
        TextSource.of(ids, lengths, labels, pad=5),
        TextSource.of(ids, lengths, labels, types=torch.zeros_like(ids)),
    ]
    assert len({base, *(source.fingerprint() for source in changed)}) == 6


def test_a_model_that_changes_its_inputs_does_not_change_the_data():
    source = numbered([3, 2, 1], types=True)
    before = source.fingerprint()
    for x, _ in source.batches(2):
        x["input_ids"].zero_()
        x["token_type_ids"].add_(9)
    assert source.fingerprint() == before


def test_parts_are_disjoint_and_balanced():
    source = numbered([1 + i % 7 for i in range(60)])
    first, second = split_source(source, (0.5, 0.5), seed=0)
    assert tokens(source) == sorted(tokens(first) + tokens(second))
    assert torch.bincount(first.labels).tolist() == [10, 10, 10]
    few = limited(source, 6, seed=0)
    assert torch.bincount(few.labels).tolist() == [2, 2, 2]
    assert limited(source, 60, seed=0) is source


def test_a_loader_of_named_tensors_is_held_as_texts():
    source = numbered([5, 4, 2, 1], types=True)
    loader = LoaderSource(list(source.batches(2)), 4)
    assert in_memory(loader.loader).fingerprint() == source.fingerprint()
    (part,) = split_source(loader, (1.0,), seed=0)
    assert part.fingerprint() == source.fingerprint()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"input_ids": [[1, 2]]}, "attention_mask"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1]], "bbox": [[0, 0]]}, "not attention_mask, bbox"),
        ({"input_ids": [[0, 2]], "attention_mask": [[0, 1]]}, "padding_side = 'right'"),
    ],
)
def test_a_loader_of_other_names_is_one_line(inputs, words):
    named = {name: torch.tensor(values) for name, values in inputs.items()}
    with pytest.raises(UserError, match=words):
        in_memory([(named, torch.tensor([0]))])


@pytest.fixture(scope="module")
def tokenizer():
    return texts.tiny_tokenizer(longest=6)


WORDS = {word: i for i, word in enumerate((*texts.SPECIAL, *texts.FILLERS, *texts.MARKERS))}


def test_tokens_by_hand(tokenizer):
    read = Texts(("the film", "good", "a plot with zebra"), None, torch.tensor([2, 0, 1]), ("x", "y", "z"))
    source = tokenise(read, tokenizer, max_length=6)
    w = WORDS
    cls, sep, pad = w["[CLS]"], w["[SEP]"], w["[PAD]"]
    assert source.ids.tolist() == [
        [cls, w["a"], w["plot"], w["with"], w["[UNK]"], sep],
        [cls, w["the"], w["film"], sep, pad, pad],
        [cls, w["good"], sep, pad, pad, pad],
    ]
    assert source.lengths.tolist() == [6, 4, 3]
    assert source.labels.tolist() == [1, 2, 0]
    assert source.types.tolist() == [[0] * 6] * 3
    assert source.truncated is None


def test_pairs_and_what_is_too_long_by_hand(tokenizer):
    read = Texts(("the", "a a a a"), ("good", "odd"), torch.tensor([0, 1]), ("x", "y"))
    source = tokenise(read, tokenizer, max_length=6)
    w = WORDS
    cls, sep, pad = w["[CLS]"], w["[SEP]"], w["[PAD]"]
    assert source.ids.tolist() == [
        [cls, w["a"], w["a"], sep, w["odd"], sep],
        [cls, w["the"], sep, w["good"], sep, pad],
    ]
    assert source.types.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]]
    assert source.truncated.tolist() == [True, False]


def test_a_text_of_just_the_longest_length_lost_nothing(tokenizer):
    read = Texts(("a a a a", "a a a a a"), None, torch.tensor([0, 1]), ("x", "y"))
    assert tokenise(read, tokenizer, max_length=6).truncated.tolist() == [False, True]


def test_how_long_a_text_may_be(tokenizer):
    assert longest_text(tokenizer) == 6
    tokenizer_without_limit = texts.tiny_tokenizer(longest=int(1e30))
    assert longest_text(tokenizer_without_limit) == 512
    assert longest_text(object(), otherwise=64) == 64


def test_classes_follow_the_names_of_a_trained_model():
    read = Texts(("a", "b"), None, torch.tensor([0, 2]), ("entailment", "neutral", "contradiction"))
    other = read.ordered(("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))
    assert other.labels.tolist() == [2, 0]
    assert read.ordered(("yes", "no", "perhaps")) is read
    assert read.ordered(("entailment", "neutral")) is read


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return texts.tiny_text_model(tmp_path_factory.mktemp("model"))


def test_a_table_is_three_parts_with_a_note_on_what_was_cut(folder, tmp_path):
    data = load_data(f"tsv:{texts.tiny_tsv(tmp_path / 't.tsv')}", calibration=30, tokenizer=folder)
    assert (len(data.train), len(data.calibration), len(data.heldout)) == (132, 30, 78)
    assert torch.bincount(data.calibration.labels).tolist() == [10, 10, 10]
    assert data.names == ("0", "1", "2")
    assert data.is_text
    assert data.input_shape == (15,)
    assert data.notes == ()
    long = " ".join(["film"] * 40)
    rows = "".join(f"{long if i < 3 else 'good'}\t{i % 2}\ttrain\n" for i in range(20))
    (tmp_path / "long.tsv").write_text(f"text\tlabel\tsplit\n{rows}good\t0\ttest\nbad\t1\ttest\n")
    (note,) = load_data(f"tsv:{tmp_path}/long.tsv", tokenizer=folder).notes
    assert note.startswith("3 of 20 training texts are longer than the 32 tokens")


def test_what_judges_texts(folder, tmp_path):
    words = {"train": "good", "dev": "bad", "test": "film"}
    lines = [f"{words[part]}\t{'yn'[i % 2]}\t{part}\n" for i in range(8) for part in words]
    rows = "".join(lines)
    (tmp_path / "own.tsv").write_text(f"text\tlabel\tsplit\n{rows}")
    # All rows of a table without parts, numbered as the classes of the data are.
    (tmp_path / "other.tsv").write_text("text\tlabel\nbad\ty\nbad film\ty\n")
    own = load_data(f"tsv:{tmp_path}/own.tsv", tokenizer=folder)
    assert [len(part) for part in (own.train, own.calibration, own.heldout, own.validation)] == [6, 2, 8, 8]
    other = load_data(f"tsv:{tmp_path}/own.tsv", tokenizer=folder, validation=f"tsv:{tmp_path}/other.tsv")
    assert (other.names, other.validation.labels.tolist()) == (("n", "y"), [1, 1])
    (tmp_path / "other.tsv").write_text("text\tlabel\nbad\tperhaps\n")
    with pytest.raises(UserError, match="class 'perhaps' is none of n, y"):
        load_data(f"tsv:{tmp_path}/own.tsv", tokenizer=folder, validation=f"tsv:{tmp_path}/other.tsv")


def test_texts_need_a_tokenizer(tmp_path):
    path = texts.tiny_tsv(tmp_path / "t.tsv")
    with pytest.raises(UserError, match=r"is text and needs a tokenizer: use a model such as hf:DIR"):
        load_data(f"tsv:{path}")
    with pytest.raises(UserError, match="no tokenizer in"):
        load_data(f"tsv:{path}", tokenizer=tmp_path)
    with pytest.raises(UserError, match="no tokenizer in") as caught:
        open_tokenizer(str(tmp_path / "none" / "at" / "all"))
    assert "\n" not in str(caught.value)


def test_an_empty_text_without_special_tokens_is_one_line():
    source = TextSource.of(
        torch.zeros(3, 2, dtype=torch.int64), torch.tensor([2, 0, 1]), torch.zeros(3).long()
    )
    assert source.validation_error() == "no token in 1 of 3 texts; drop empty texts"
