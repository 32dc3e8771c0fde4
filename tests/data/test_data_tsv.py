"""Tables of texts, whole and broken, packed or not."""

import gzip
import json

import pytest

from coprune.data.tsv import class_names, load, read_table
from coprune.errors import UserError


@pytest.fixture
def table(tmp_path):
    """Writes rows of fields as a ``.tsv`` file; gives the path."""

    def write(*rows, name="t.tsv"):
        content = "".join("\t".join(row) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(tmp_path / name)

    return write


HEADER = ("text", "label", "split")


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
def test_splits_by_hand(table, name):
    path = table(
        HEADER,
        ("one", "b", "train"),
        ("two", "a", "dev"),
        ("three", "a", "test"),
        ("four", "c", "Train"),
        name=name,
    )
    train, heldout, validation = load(path)
    # dev is for validation where there is a test part
    assert train.text == ("one", "four")
    assert train.names == heldout.names == validation.names == ("a", "b", "c")
    assert train.labels.tolist() == [1, 2]
    assert (validation.text, validation.labels.tolist()) == (("two",), [0])
    assert (heldout.text, heldout.labels.tolist()) == (("three",), [0])
    assert train.pair is None


def test_dev_is_held_out_where_there_is_no_test_part(table):
    train, heldout = load(table(HEADER, ("one", "0", "train"), ("two", "1", "validation")))
    assert (train.text, heldout.text) == (("one",), ("two",))


def test_without_parts_a_balanced_fifth_is_held_out_always_the_same(table):
    path = table(("label", "text"), *((str(i % 2), f"text {i}") for i in range(50)))
    train, heldout = load(path)
    assert (len(train), len(heldout)) == (40, 10)
    assert heldout.labels.bincount().tolist() == [5, 5]
    assert set(train.text).isdisjoint(heldout.text)
    assert load(path)[1].text == heldout.text


def test_pairs_other_columns_and_their_order(table):
    path = table(
        ("id", "split", "text_pair", "label", "text"),
        ("7", "train", "why", "1", "because"),
        ("8", "test", "who", "0", "me"),
    )
    train, heldout = load(path)
    assert (train.text, train.pair) == (("because",), ("why",))
    assert (heldout.text, heldout.pair) == (("me",), ("who",))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["good", "bad"], ("bad", "good")),
    ],
)
def test_classes_are_sorted_and_as_numbers_if_they_are(labels, names):
    assert class_names(labels) == names


def test_quotes_and_rare_line_ends_are_part_of_a_text(table):
    path = table(HEADER, ('"an open quote', "0", "train"), ("a\u2028b\x0bc\x85d", "1", "test"))
    train, heldout = load(path)
    assert train.text == ('"an open quote',)
    assert heldout.text == ("a\u2028b\x0bc\x85d",)


def test_windows_line_ends_and_a_mark_of_byte_order(tmp_path):
    content = "text\tlabel\r\na film\t1\r\nb\t0\r\n"
    (tmp_path / "t.tsv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_table(tmp_path / "t.tsv") == {"text": ["a film", "b"], "label": ["1", "0"]}


def test_csv_and_json_lines(tmp_path):
    (tmp_path / "t.csv").write_text('text,label\n"a, ""b""\nc",1\n')
    assert read_table(tmp_path / "t.csv") == {"text": ['a, "b"\nc'], "label": ["1"]}
    rows = [{"text": "a\tb", "label": 1, "more": None}, {"label": 0, "text": "c", "more": 2, "new": 3}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_table(tmp_path / "t.jsonl") == {
        "text": ["a\tb", "c"],
        "label": ["1", "0"],
        "more": ["None", "2"],
    }


BAD = {
    "no label column": ([("text", "lable"), ("a", "0")], "no column 'label'; did you mean lable"),
    "no text column": ([("label",), ("0",)], "no column 'text'"),
    "a field too many": ([HEADER, ("a", "0", "train", "x")], "line 2: 4 fields where the header has 3"),
    "a field too few": ([HEADER, ("a", "0", "train"), ("b", "0")], "line 3: 2 fields"),
    "unknown split": ([HEADER, ("a", "0", "tset")], "split 'tset'; splits are train, dev and test"),
    "no training rows": ([HEADER, ("a", "0", "test")], "no training rows"),
    "no rows": ([("text", "label")], "no training rows"),
    "no label": ([HEADER, ("a", "0", "train"), ("b", " ", "train")], "row 2 has no label"),
    "empty": ([], "empty"),
}


@pytest.mark.parametrize(("rows", "words"), BAD.values(), ids=BAD)
def test_a_bad_table_is_one_line(table, rows, words):
    with pytest.raises(UserError, match=words) as caught:
        load(table(*rows))
    assert "\n" not in str(caught.value)


def test_a_bad_file_is_one_line(tmp_path):
    whole = gzip.compress(b"text\tlabel\na\t0\n" * 50)
    content = {
        "cut.tsv.gz": whole[:-9],
        "plain.tsv.gz": b"text\tlabel\n",
        "latin.tsv": "text\tlabel\nfa\u00e7ade\t0\n".encode("latin-1"),
        "t.xlsx": b"PK",
        "t.jsonl": b'{"text": "a", "label": 0}\n["b", 1]\n',
        "broken.jsonl": b'{"text": "a"',
        "keys.jsonl": b'{"text": "a", "label": 0}\n{"text": "b"}\n',
        "open.csv": b'text,label\n"a,0\n',
    }
    for name, raw in content.items():
        (tmp_path / name).write_bytes(raw)
    for name in (*content, "none.tsv", ""):
        with pytest.raises(UserError) as caught:
            load(str(tmp_path / name) if name else None)
        assert "\n" not in str(caught.value)
