"""Data by a name for every task: photographs, lines, tables, archives, 🤗 data sets, a user's own loaders."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from coprune.data import load_data
from coprune.data.language import packed
from coprune.data.text import Texts
from coprune.data.tokenizer import tokenise
from coprune.errors import UserError
from images import write_folders
from texts import tiny_tokenizer


@pytest.fixture
def tokenizer(tmp_path) -> str:
    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    return str(tmp_path / "tok")


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def rows(source) -> list:
    """Inputs and targets, sample by sample."""
    return [(x, y) for x, y in source.batches(1)]


def every(data) -> int:
    return len(data.train) + len(data.calibration) + len(data.heldout)


def test_photographs_of_a_folder_and_of_its_folders(tmp_path):
    parts = write_folders(tmp_path / "parts", classes=2, train=8, val=3)
    data = load_data(f"folder:{parts}@16", calibration=4)
    assert (data.classes, data.names, data.input_shape) == (None, (), (3, 16, 16))
    assert (len(data.train), len(data.calibration), len(data.heldout)) == (12, 4, 6)
    assert next(data.heldout.batches(2))[1] is None
    shutil.rmtree(parts / "val")
    whole = load_data(f"folder:{parts}@16", calibration=4)
    assert (every(whole), len(whole.heldout)) == (16, 3)
    kept = {f for part in (whole.train, whole.calibration, whole.heldout) for f in part.files}
    assert kept == {f"train/n00{c}/{i}.JPEG" for c in range(2) for i in range(8)}
    labelled = load_data(f"imagefolder:{write_folders(tmp_path / 'more')}@16", calibration=4)
    assert torch.equal(
        next(load_data(f"folder:{tmp_path / 'more'}@16", calibration=4).heldout.batches(9))[0],
        next(labelled.heldout.batches(9))[0],
    )
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no images in"):
        load_data(f"folder:{tmp_path / 'none'}")


def test_blocks_of_tokens_by_hand():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "[SEP]"
    ids = tokenizer.get_vocab()
    source = packed(["the film\n", "good bad", "odd"], tokenizer, block=3)
    words = ["the", "film", "good", "bad", "[SEP]", "odd"]
    ((inputs, targets),) = source.batches(9)
    assert inputs["input_ids"].flatten().tolist() == [ids[w] for w in words]
    assert torch.equal(targets, inputs["input_ids"])
    assert inputs["attention_mask"].sum() == 6
    assert len(packed(["the film plot with"], tokenizer, block=3)) == 1  # the rest is left out
    with pytest.raises(UserError, match="2 tokens are fewer than a block of 3"):
        packed(["the\n", "film\n"], tokenizer, block=3)


def test_lines_are_samples_or_blocks(tmp_path, tokenizer):
    file = tmp_path / "text.txt"
    file.write_text("".join(f"the film number {'long ' * (i % 5)}\n\n" for i in range(40)))
    data = load_data(f"lines:{file}", calibration=8, tokenizer=tokenizer, task="feature-extraction")
    assert (data.classes, every(data), len(data.heldout)) == (None, 40, 8)
    assert rows(data.heldout)[0][1] is None
    blocks = load_data(
        f"lines:{file}", calibration=5, tokenizer=tokenizer, task="text-generation", max_length=8
    )
    x, y = next(blocks.heldout.batches(2))
    assert (x["input_ids"].shape, blocks.input_shape["input_ids"]) == ((2, 8), [8])
    assert torch.equal(x["input_ids"], y)
    # The last fifth is held out: paragraphs 32 to 39, of three tokens and their "long" ones.
    assert len(blocks.heldout) == (8 * 3 + 2 + 3 + 4 + 0 + 1 + 2 + 3 + 4) // 8
    short = load_data(f"lines:{file}", calibration=8, tokenizer=tokenizer, task="outputs", max_length=4)
    assert short.input_shape == (4,)
    (tmp_path / "one.txt").write_text("the film")
    with pytest.raises(UserError, match="a single paragraph"):
        load_data(f"lines:{tmp_path / 'one.txt'}", tokenizer=tokenizer, task="text-generation")


def test_a_table_with_numbers_or_nothing_to_learn(tmp_path, tokenizer):
    scores, plain = tmp_path / "scores.tsv", tmp_path / "plain.tsv"
    text = [f"the film {'good ' * (i % 4)}" for i in range(40)]
    scores.write_text("text\tlabel\n" + "".join(f"{t}\t{i % 4 + 0.5}\n" for i, t in enumerate(text)))
    plain.write_text("text\n" + "\n".join(text))
    for task in (None, "regression"):
        data = load_data(f"tsv:{scores}", calibration=8, tokenizer=tokenizer, task=task)
        assert data.classes is None
        for x, y in rows(data.train) + rows(data.calibration) + rows(data.heldout):
            assert y.tolist() == [x["attention_mask"].sum() - 4 + 0.5]  # [CLS] the film [SEP]
    for name in (scores, plain):
        data = load_data(f"tsv:{name}", calibration=8, tokenizer=tokenizer, task="feature-extraction")
        assert {y for _, y in rows(data.heldout)} == {None}
    with pytest.raises(UserError, match="no column 'label'"):
        load_data(f"tsv:{plain}", tokenizer=tokenizer, task="classification")
    with pytest.raises(UserError, match="numbers that are not whole"):
        load_data(f"tsv:{scores}", tokenizer=tokenizer, task="classification")
    scores.write_text("text\tlabel\nthe film\tgood\n")
    with pytest.raises(UserError, match="regression needs a number a row"):
        load_data(f"tsv:{scores}", tokenizer=tokenizer, task="regression")


@pytest.mark.parametrize(
    ("task", "y", "kind"),
    [
        (None, np.random.rand(40), torch.float32),
        (None, np.random.rand(40, 3), torch.float32),
        (None, np.zeros((40, 8, 8), np.uint8), torch.int64),
        ("segmentation", np.zeros((40, 8, 8), np.uint8), torch.int64),
        ("multilabel", np.zeros((40, 5), bool), torch.float32),
        ("regression", np.arange(40), torch.float32),
        ("outputs", None, None),
        (None, None, None),
    ],
)
def test_archives_with_any_targets(tmp_path, task, y, kind):
    x = np.random.rand(40, 1, 8, 8).astype(np.float32)
    arrays = {"x_train": x} | ({} if y is None else {"y_train": y})
    np.savez(tmp_path / "a.npz", **arrays)
    data = load_data(f"npz:{tmp_path / 'a.npz'}", calibration=8, task=task)
    assert (data.classes, every(data), len(data.heldout)) == (None, 40, 8)
    seen = rows(data.train) + rows(data.calibration) + rows(data.heldout)
    places = [int(np.abs(x - one.numpy()).sum((1, 2, 3)).argmin()) for one, _ in seen]
    assert sorted(places) == list(range(40))
    if y is None:
        assert all(target is None for _, target in seen)
    else:
        assert {target.dtype for _, target in seen} == {kind}
        assert all(np.allclose(t.numpy(), y[p]) for (_, t), p in zip(seen, places, strict=True))
    if task:
        with pytest.raises(UserError, match=r"missing; needs|labels are integers"):
            load_data(f"npz:{tmp_path / 'a.npz'}", task="classification")


def test_parts_have_targets_of_one_kind(tmp_path):
    x = np.random.rand(40, 1, 8, 8).astype(np.float32)
    for test in ({}, {"y_test": np.random.rand(40, 2)}, {"y_test": np.arange(40) % 3}):
        np.savez(tmp_path / "a.npz", x_train=x, y_train=np.random.rand(40), x_test=x, **test)
        with pytest.raises(UserError, match="held-out: training targets are of another shape or type"):
            load_data(f"npz:{tmp_path / 'a.npz'}")


def test_integers_are_class_numbers_where_nothing_is_said(tmp_path):
    x, y = np.random.rand(40, 1, 8, 8).astype(np.float32), np.arange(40) % 3
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert load_data(f"npz:{tmp_path / 'a.npz'}", calibration=8).classes == 3
    np.savez(tmp_path / "b.npz", y_train=y)
    with pytest.raises(UserError, match=r"x_train missing; needs x_train \(found: y_train\)"):
        load_data(f"npz:{tmp_path / 'b.npz'}", task="outputs")


def test_tagged_words_by_hand(tmp_path, tokenizer, datasets):
    names = ["O", "GOOD", "NAME"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    # "film-plot" becomes three tokens, of which the first has the tag.
    table = {"tokens": [["the", "film-plot", "good"]] * 20, "ner_tags": [[0, 2, 1]] * 20}
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    data = load_data(f"hf:{tmp_path / 'saved'}", calibration=4, tokenizer=tokenizer)
    assert (data.classes, data.names, every(data)) == (None, tuple(names), 20)
    x, y = rows(data.heldout)[0]
    assert x["input_ids"].shape == y.shape == (1, 7)
    assert y.tolist() == [[-100, 0, 2, -100, -100, 1, -100]]
    trained = load_data(
        f"hf:{tmp_path / 'saved'}", calibration=4, tokenizer=tokenizer, class_order=("NAME", "GOOD", "O")
    )
    assert rows(trained.heldout)[0][1].tolist() == [[-100, 2, 0, -100, -100, 1, -100]]
    with pytest.raises(UserError, match="no column"):
        load_data(f"hf:{tmp_path / 'saved'}", tokenizer=tokenizer, task="classification")


def test_tags_are_cut_with_their_tokens():
    texts = Texts((("the",) * 3, ("film",)), values=((1, 2, 1), (2,)), names=("a", "b", "c"))
    source = tokenise(texts, tiny_tokenizer(), max_length=4)
    assert [y.tolist() for _, y in source.batches(1)] == [[[-100, 1, 2, -100]], [[-100, 2, -100]]]
    assert source.take(torch.tensor([1])).values.tolist() == [[-100, 2, -100]]


def test_answers_by_hand(tmp_path, tokenizer, datasets):
    context = "the film with good music"
    answers = [{"text": ["good music"], "answer_start": [14]}, {"text": [], "answer_start": []}] * 10
    table = {"question": ["odd plot"] * 20, "context": [context] * 20, "answers": answers}
    datasets.Dataset.from_dict(table).save_to_disk(tmp_path / "saved")
    data = load_data(f"hf:{tmp_path / 'saved'}", calibration=4, tokenizer=tokenizer)
    # [CLS] odd plot [SEP] the film with good music [SEP]
    found = {(int(y["start_positions"]), int(y["end_positions"])) for _, y in rows(data.train)}
    assert found == {(7, 8), (0, 0)}
    cut = load_data(f"hf:{tmp_path / 'saved'}", calibration=4, tokenizer=tokenizer, max_length=8)
    assert {int(y["start_positions"]) for _, y in rows(cut.train)} == {0}
    with pytest.raises(UserError, match="no columns tokens and ner_tags; it has question"):
        load_data(f"hf:{tmp_path / 'saved'}", tokenizer=tokenizer, task="token-classification")


def test_a_text_for_a_text_by_hand(tmp_path, tokenizer, datasets):
    rows_of = [{"en": "the film " + "good " * (i % 3), "de": "odd"} for i in range(20)]
    datasets.Dataset.from_dict({"translation": rows_of}).save_to_disk(tmp_path / "saved")
    table = "".join(f"{row['en']}\t{row['de']}\n" for row in rows_of)
    (tmp_path / "pairs.tsv").write_text(f"text\ttext_pair\n{table}")
    vocabulary = tiny_tokenizer().get_vocab()
    cls, sep, odd = (vocabulary[word] for word in ("[CLS]", "[SEP]", "odd"))
    for name in (f"hf:{tmp_path / 'saved'}", f"tsv:{tmp_path / 'pairs.tsv'}"):
        data = load_data(name, calibration=4, tokenizer=tokenizer, task="seq2seq")
        assert every(data) == 20
        x, y = rows(data.heldout)[0]
        assert y.tolist() == [[cls, odd, sep]]
        assert x["decoder_input_ids"].tolist() == [[vocabulary["[PAD]"], cls, odd]]
        assert x["input_ids"].shape == x["attention_mask"].shape
    with pytest.raises(UserError, match="seq2seq needs a text for every text"):
        load_data(f"lines:{tmp_path / 'pairs.tsv'}", tokenizer=tokenizer, task="seq2seq")


def test_texts_and_images_of_the_hub(tmp_path, tokenizer, datasets):
    from PIL import Image

    text = datasets.Dataset.from_dict({"text": [f"the film {i}" for i in range(20)], "label": [0, 1] * 10})
    text.to_parquet(str(tmp_path / "texts" / "train.parquet"))
    where = f"hf:{tmp_path / 'texts'}"
    classes = load_data(where, calibration=4, tokenizer=tokenizer)
    assert (classes.classes, every(classes)) == (2, 20)
    assert load_data(where, calibration=4, tokenizer=tokenizer, task="outputs").classes is None
    pictures = [Image.new("RGB", (20 + i, 30), (12 * i, 0, 0)) for i in range(20)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = {"image": pictures, "label": [0, 1] * 10}
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "images")
    images = load_data(f"hf:{tmp_path / 'images'}", calibration=4)
    assert (images.classes, images.names, images.input_shape) == (2, ("a", "b"), (3, 224, 224))
    red = {int((x[0, 0, 0, 0] * 0.229 + 0.485) * 255 / 12 + 0.5) % 2 == int(y) for x, y in rows(images.train)}
    assert red == {True}
    alone = load_data(f"hf:{tmp_path / 'images'}", calibration=4, task="feature-extraction")
    assert (alone.classes, rows(alone.heldout)[0][1]) == (None, None)
    assert alone.fingerprint != images.fingerprint


LOADERS = """
import torch
x = torch.arange(40.0).view(40, 1, 1).expand(40, 2, 3)
batches = list(zip(x.split(8), (torch.arange(40) % 3).split(8)))
def pair(): return batches, batches[:2]
def three(): return batches, batches[:2], [(x[:4] + 0.5, torch.arange(4) % 3)]
def named(): return {"calibration": [part for part, _ in batches], "eval": batches[:1]}
def one(): return [part for part, _ in batches]
def stream(): return ([part] for part, _ in batches)
def wrong(): return {"training": batches}
def many(): return (batches,) * 4
def nothing(): return None
def fails(): raise KeyError("gone")
number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_loaders.py").write_text(LOADERS)
    monkeypatch.chdir(tmp_path)
    yield "python:mine_loaders:"
    import sys

    sys.modules.pop("mine_loaders", None)


def test_loaders_of_ones_own(mine):
    data = load_data(f"{mine}pair", calibration=10)
    assert (data.classes, len(data.train), len(data.heldout), len(data.calibration)) == (3, 40, 16, 10)
    three = load_data(f"{mine}three", calibration=10)
    assert len(three.validation) == 4
    named = load_data(f"{mine}named", calibration=10)
    assert (named.classes, len(named.calibration), len(named.heldout)) == (None, 40, 8)
    for name in ("one", "stream"):
        assert len(load_data(f"{mine}{name}", calibration=40).heldout) == 8
    assert load_data(f"{mine}pair", calibration=10, task="outputs").classes is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong", "a loader 'training'; names are train, eval, validation, calibration"),
        ("many", r"a tuple of 4; return \(train, eval\), "),
        ("nothing", "train= is None"),
        ("fails", r"fails in mine_loaders.py, line \d+: KeyError: 'gone'"),
        ("number", "is no function but 3"),
        ("absent", "mine_loaders has no callable 'absent'"),
        ("", "write python:package.module:loaders"),
    ],
)
def test_functions_that_return_no_loaders(mine, name, words):
    with pytest.raises(UserError, match=words) as said:
        load_data(f"{mine}{name}")
    assert "\n" not in str(said.value)
