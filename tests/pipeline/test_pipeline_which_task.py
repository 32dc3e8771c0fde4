"""Which task it is: asked for, plain, or refused."""

import pytest
import torch
from torch import nn

from coprune.data import TreeSource
from coprune.errors import UserError
from coprune.pipeline.which_task import Asked, scaled, which_task
from coprune.task import TASKS

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Hands(nn.Module):
    """Hands back what it was given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        output = self.output
        return output(len(images)) if callable(output) else output


def logits(n):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1))


def maps(n):
    return torch.randn(n, 5, 8, 8, generator=torch.Generator().manual_seed(1))


CLASSES, MASKS = torch.tensor([0, 1, 2, 3]), torch.zeros(4, 8, 8, dtype=torch.long)


@pytest.mark.parametrize(
    ("output", "targets", "labelled", "due"),
    [
        (logits, CLASSES, True, "classification"),
        (logits, CLASSES, False, "classification"),
        (logits, None, False, "classification"),
        (lambda n: nn.functional.normalize(logits(n), dim=1), None, False, "outputs"),  # an embedding
        (lambda n: logits(n).relu(), None, False, "outputs"),  # features
        (lambda n: logits(n)[:, :1], None, False, "outputs"),  # a number
        (maps, None, False, "outputs"),
        (maps, MASKS, False, "segmentation"),
        (lambda n: {"out": maps(n)}, MASKS, False, "segmentation"),
        (lambda n: (maps(n), [maps(n)]), None, False, "outputs"),
    ],
)
def test_what_shapes_say(output, targets, labelled, due):
    assert which_task(Hands(output), (X, targets), Asked(), labelled=labelled).name == due


@pytest.mark.parametrize(
    "targets", [torch.rand(4, 2), torch.zeros(4, 5, dtype=torch.long), {"boxes": torch.rand(4, 2, 4)}]
)
def test_targets_that_say_nothing_are_refused_with_the_way_out(targets):
    with pytest.raises(UserError, match=r"no class numbers \[N\]; say what they are with task") as refused:
        which_task(Hands(logits), (X, targets), Asked(), labelled=False)
    assert "\n" not in str(refused.value)
    assert "multilabel, regression" in str(refused.value)


def test_what_was_asked_for_counts():
    asked = Asked("multilabel", metric="label_accuracy")
    found = which_task(Hands(logits), (X, torch.zeros(4, 5)), asked, labelled=False)
    assert (found.name, found.judged.name) == ("multilabel", "label_accuracy")
    own = Asked(TASKS["regression"], loss=lambda output, targets: output.sum())
    found = which_task(Hands(logits), (X, None), own, labelled=True)
    assert found.name == "regression"
    assert float(found.loss_of(torch.ones(2, 3), X, None)) == 6


@pytest.mark.parametrize(
    "outputs", ["1", ("1",), lambda output: output[1]], ids=["name", "names", "function"]
)
def test_named_outputs_count(outputs):
    found = which_task(
        Hands(lambda n: (maps(n), logits(n))), (X, None), Asked(outputs=outputs), labelled=False
    )
    assert [tuple(t.shape) for t in found.outputs(Hands(lambda n: (maps(n), logits(n))), X).tensors] == [
        (4, 5)
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked("segmentaton"), "segmentation"),
        (Asked("segmentation", metric="mio"), "miou"),
        (Asked("regression", loss=3), "give a function of"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(asked, said):
    with pytest.raises(UserError, match=said):
        which_task(Hands(logits), (X, None), asked, labelled=False)


def test_errors_of_numbers_are_in_units_of_what_the_model_says():
    model, source = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval(), TreeSource.of([(X, None)])
    found = scaled(TASKS["regression"], model, source)
    with torch.no_grad():
        due = model(X).double().std(0, correction=0)
    torch.testing.assert_close(found.divergence.spreads[0], due)
    assert scaled(TASKS["classification"], model, source) is TASKS["classification"]
