"""SST-5, MNLI and hub data sets in their published layouts, written here by hand."""

import json
import runpy
import sys
import types

import pytest

import texts
from coprune.data import hub, load_data
from coprune.data.glue import ENTAILMENTS, load_mnli, load_mnli_mismatched, load_sst5, sentence_of
from coprune.errors import UserError

TREES = {
    "train": [
        "(3 (2 (2 The) (2 Rock)) (4 (3 (2 is) (4 (2 destined) (2 (2 to) (2 be)))) (2 .)))",
        "(0 (2 -LRB-) (1 (1 bad\\/awful) (2 -RRB-)))",
    ],
    "dev": ["(4 (4 fine) (2 !))"],
    "test": ["(1 (2 It) (1 (2 's) (1 flat)))", "(2 film)"],
}


def write_trees(folder):
    folder.mkdir(exist_ok=True)
    for part, lines in TREES.items():
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n\n")


@pytest.mark.parametrize("inside", ["", "trees"])
def test_trees_by_hand(tmp_path, inside):
    write_trees(tmp_path / inside)
    train, heldout, validation = load_sst5(str(tmp_path))
    assert train.text == ("The Rock is destined to be .", "( bad/awful )")
    assert train.labels.tolist() == [3, 0]
    assert (validation.text, validation.labels.tolist()) == (("fine !",), [4])
    assert heldout.text == ("It 's flat", "film")
    assert heldout.labels.tolist() == [1, 2]
    assert train.names == ("very negative", "negative", "neutral", "positive", "very positive")


@pytest.mark.parametrize("tree", ["", "film", "(5 film)", "(3 (2 a) (2 b)", "(3 )", "3 (2 a)"])
def test_no_tree_is_refused(tree, tmp_path):
    with pytest.raises(ValueError, match="not a tree"):
        sentence_of(tree)
    write_trees(tmp_path)
    if tree:
        (tmp_path / "train.txt").write_text(f"(2 film)\n{tree}\n")
        with pytest.raises(UserError, match=r"train\.txt, line 2: not a tree"):
            load_sst5(str(tmp_path))


def test_sentiments_in_tables(tmp_path):
    rows = [{"text": "a", "label": 4, "label_text": "very positive"}, {"text": "b", "label": 0}]
    (tmp_path / "train.jsonl").write_text(json.dumps({**rows[0]}) + "\n")
    (tmp_path / "validation.csv").write_text("label,text\n1,c\n")
    (tmp_path / "test.tsv").write_text("text\tlabel\nd\tvery negative\ne\tpositive\n")
    train, heldout, validation = load_sst5(str(tmp_path))
    assert (train.text, train.labels.tolist()) == (("a",), [4])
    assert (validation.text, validation.labels.tolist()) == (("c",), [1])
    assert (heldout.text, heldout.labels.tolist()) == (("d", "e"), [0, 3])
    (tmp_path / "test.tsv").write_text("text\tlabel\nd\t5\n")
    with pytest.raises(UserError, match="label '5'"):
        load_sst5(str(tmp_path))


def test_sst5_without_a_part(tmp_path):
    with pytest.raises(UserError, match=r"train\.txt is missing"):
        load_sst5(str(tmp_path))
    write_trees(tmp_path)
    (tmp_path / "test.txt").unlink()
    assert len(load_sst5(str(tmp_path))[1]) == 1  # dev
    (tmp_path / "dev.txt").unlink()
    with pytest.raises(UserError, match=r"test\.txt is missing"):
        load_sst5(str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        load_sst5(str(tmp_path / "none"))
    with pytest.raises(UserError, match="sst5:ROOT"):
        load_sst5(None)


GLUE = ("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse")
GLUE += ("sentence1_parse", "sentence2_parse", "sentence1", "sentence2", "label1", "gold_label")
PAIRS = {
    "train": [("A man sleeps.", 'He is "awake', "contradiction"), ("It rains.", "It is wet.", "entailment")],
    "dev_matched": [("One.", "Two.", "neutral"), ("Three.", "Four.", "-")],
    "dev_mismatched": [("Five.", "Six.", "entailment"), ("Seven.", "Eight.", "contradiction")],
}


def write_glue(folder):
    for part, rows in PAIRS.items():
        lines = [GLUE]
        for i, (one, two, gold) in enumerate(rows):
            lines.append(
                (str(i), "1", "1e", "fiction", "( x )", "( y )", "(ROOT", "(ROOT", one, two, gold, gold)
            )
        (folder / f"{part}.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")


def write_original(folder):
    for part, rows in PAIRS.items():
        lines = [
            {"annotator_labels": [gold], "gold_label": gold, "sentence1": one, "sentence2": two, "genre": "x"}
            for one, two, gold in rows
        ]
        (folder / f"multinli_1.0_{part}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))


@pytest.mark.parametrize("write", [write_glue, write_original])
@pytest.mark.parametrize("inside", ["", "MNLI", "multinli_1.0"])
def test_inferences_by_hand(tmp_path, write, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    write(tmp_path / inside)
    train, matched = load_mnli(str(tmp_path))
    assert train.text == ("A man sleeps.", "It rains.")
    assert train.pair == ('He is "awake', "It is wet.")
    assert train.labels.tolist() == [2, 0]
    assert train.names == ENTAILMENTS
    assert (matched.text, matched.pair, matched.labels.tolist()) == (("One.",), ("Two.",), [1])
    _, mismatched = load_mnli_mismatched(str(tmp_path))
    assert (mismatched.text, mismatched.labels.tolist()) == (("Five.", "Seven."), [0, 2])


def test_mnli_without_a_part(tmp_path):
    write_glue(tmp_path)
    (tmp_path / "dev_matched.tsv").unlink()
    with pytest.raises(UserError, match=r"neither dev_matched\.tsv"):
        load_mnli(str(tmp_path))
    assert len(load_mnli_mismatched(str(tmp_path))[1]) == 2
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tgold_label\na\tb\tmaybe\n")
    with pytest.raises(UserError, match="gold_label 'maybe'"):
        load_mnli_mismatched(str(tmp_path))


def test_by_name_and_in_the_order_of_a_trained_model(tmp_path):
    model = texts.tiny_text_model(tmp_path / "model")
    rows = "".join(f"good\tbad\t{gold}\n" for gold in ENTAILMENTS for _ in range(8))
    for part in ("train", "dev_matched"):
        (tmp_path / f"{part}.tsv").write_text(f"sentence1\tsentence2\tgold_label\n{rows}")
    data = load_data(f"mnli:{tmp_path}", tokenizer=model, calibration=6)
    assert (data.classes, data.names) == (3, ENTAILMENTS)
    order = ("Contradiction", "Entailment", "Neutral")
    turned = load_data(f"mnli:{tmp_path}", tokenizer=model, calibration=6, class_order=order)
    assert turned.names == order
    assert data.heldout.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert turned.heldout.labels.tolist() == [1] * 8 + [2] * 8 + [0] * 8


class Part:
    """A part of a data set, as 🤗 Datasets shows it: columns by name, features with class names."""

    def __init__(self, names=None, **columns):
        self._columns = columns
        self.column_names = list(columns)
        self.features = {"label": types.SimpleNamespace(names=names) if names else types.SimpleNamespace()}

    def __getitem__(self, name):
        return self._columns[name]


@pytest.fixture
def datasets(monkeypatch):
    """Puts a stand-in for the library in place, which is not needed to test what is done with it."""

    def serve(parts):
        def load_dataset(name, config):
            if isinstance(parts, Exception):
                raise parts
            return {f"{name}/{config}": parts}[f"{name}/{config}"]

        monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))

    return serve


def test_hub_parts_by_hand(datasets):
    names = ["no", "yes"]
    datasets(
        {
            "train": Part(names, idx=[0, 1], sentence=["a", "b"], label=[1, 0]),
            "validation": Part(names, idx=[0], sentence=["c"], label=[1]),
            "test": Part(names, idx=[0], sentence=["d"], label=[-1]),  # as GLUE hides them
        }
    )
    train, heldout = hub.load("glue:sst2")
    assert (train.text, train.labels.tolist(), train.names) == (("a", "b"), [1, 0], ("no", "yes"))
    assert (heldout.text, heldout.labels.tolist()) == (("c",), [1])


def test_hub_pairs_and_validation_of_two_kinds(datasets):
    part = Part(premise=["a", "x"], hypothesis=["b", "y"], label=["no", "yes"])
    datasets({"train": part, "validation_matched": part, "validation_mismatched": Part(), "other": Part()})
    train, heldout = hub.load("some/mnli")
    assert (train.text, train.pair) == (("a", "x"), ("b", "y"))
    assert heldout.names == ("no", "yes")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"train": Part(words=["a"], label=[0])}, "no column text, sentence"),
        ({"train": Part(text=["a"], score=[0.5])}, "no column label"),
        ({"test": Part(text=["a"], label=[0])}, "no labelled training part; it has test"),
        ({"train": Part(["a"], text=["a"], label=[1])}, "label '1' is none of its 1 classes"),
        (
            {"train": Part(text=["a"], label=["x"]), "test": Part(text=["a"], label=["y"])},
            "different labels",
        ),
        (ConnectionError("Couldn't reach the hub\nmore"), "reach the hub.*tsv:FILE"),
        (ValueError("Unknown split"), "cannot be loaded"),
    ],
)
def test_a_bad_hub_data_set_is_one_line(datasets, parts, words):
    datasets(parts)
    with pytest.raises(UserError, match=words) as caught:
        hub.load("a/b")
    assert "\n" not in str(caught.value)


def test_hub_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install"):
        hub.load("a/b")
    with pytest.raises(UserError, match="hf:NAME"):
        hub.load(None)


def test_texts_of_the_hub_need_no_pil(monkeypatch):
    # Once a bug: it comes with torchvision, which models of texts do not need.
    for module in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, module, None)
    runpy.run_path(hub.__file__)


def test_hub_with_the_library_itself(tmp_path, monkeypatch):
    """A folder of tables is a data set for it, so no network is needed."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    for part, rows in {"train": ["good,1", "bad,0", "odd,1"], "test": ["new,0"]}.items():
        (folder / f"{part}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    train, heldout = hub.load(str(folder))
    assert (train.text, train.labels.tolist(), train.names) == (("good", "bad", "odd"), [1, 0, 1], ("0", "1"))
    assert (heldout.text, heldout.labels.tolist()) == (("new",), [0])
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        hub.load(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)
