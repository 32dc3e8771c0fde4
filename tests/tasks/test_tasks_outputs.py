"""What counts of what a model hands back."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from coprune.tasks.outputs import by_name, either, embeddings, everything, named
from coprune.tracing.forward import tensors_of

X = torch.zeros(2, 3)
ROWS, MAPS = torch.arange(4.0).view(2, 2), torch.zeros(2, 5, 4, 4)


@pytest.mark.parametrize(
    ("output", "name", "place"),
    [
        ({"a": {"b": ROWS}}, "a.b", ROWS),
        ((MAPS, [ROWS]), "1.0", ROWS),
        ((MAPS, ROWS), "-1", ROWS),
        (SimpleNamespace(last=(ROWS,)), "last.0", ROWS),
    ],
)
def test_a_name_leads_to_a_part(output, name, place):
    assert named(output, name) is place
    assert list(by_name([name])(output, X)) == [place]


@pytest.mark.parametrize(
    ("output", "name", "said"),
    [
        ({"out": ROWS, "aux": ROWS}, "logits", "has no 'logits'; it has out, aux"),
        ((ROWS, MAPS), "2", "has no '2'; it has 2 parts, from 0"),
        (SimpleNamespace(out=ROWS), "x", "has no 'x'; it has out"),
    ],
)
def test_a_part_that_is_not_there_is_said_with_those_that_are(output, name, said):
    with pytest.raises(TypeError, match=said):
        named(output, name)


def test_the_usual_name_is_taken():
    read = either("logits", "out", what="logits [N, C]")
    for output in (
        ROWS,
        {"out": ROWS, "aux": MAPS},
        SimpleNamespace(loss=None, logits=ROWS),
        OrderedDict(out=ROWS),
        (ROWS, None),
        (ROWS, torch.tensor(0.5)),
        {"scores": ROWS, "classes": torch.tensor([1, 2])},
    ):
        assert read(output, X) == (ROWS,)
    with pytest.raises(
        TypeError, match=r"returns a tuple \(2 parts, from 0\) without logits; name what counts"
    ):
        read((ROWS, MAPS), X)


def test_everything_of_the_samples_counts():
    tree = (ROWS, {"maps": [MAPS], "whole": torch.tensor([1, 2])}, torch.zeros(7, 2), torch.tensor(0.5))
    found = everything(tree, X)
    assert [t is due for t, due in zip(found, (ROWS, MAPS), strict=True)] == [True, True]
    with pytest.raises(TypeError, match="without a tensor of 2 samples"):
        everything((torch.zeros(7, 2), "words"), X)
    assert len(tensors_of(tree)) == 5


def test_an_embedding_is_the_mean_of_the_real_tokens():
    tokens = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    (found,) = embeddings(
        SimpleNamespace(last_hidden_state=tokens), {"input_ids": mask, "attention_mask": mask}
    )
    assert found.tolist() == [[1, 2], [8, 9]]
    (plain,) = embeddings({"last_hidden_state": tokens}, X)
    torch.testing.assert_close(plain, tokens.mean(1))
    (given,) = embeddings({"sentence_embedding": ROWS, "last_hidden_state": tokens}, X)
    assert given is ROWS
    (pooled,) = embeddings({"last_hidden_state": MAPS + 1}, X)  # of a convolutional network
    assert pooled.shape == (2, 5)


def test_an_object_s_only_tensor_counts():
    # 🤗 depth estimators hand back predicted_depth and nothing else.
    depth = torch.zeros(2, 4, 4)
    read = either("logits", "predictions", what="values [N, …]")
    assert read({"predicted_depth": depth, "hidden_states": None}, depth) == (depth,)
    with pytest.raises(TypeError, match=r"returns a dict \(.*\) without logits"):
        read({"one": depth, "other": depth}, depth)
