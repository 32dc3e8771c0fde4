"""One source of options: what stands at a field is what is typed, read, refused and explained."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from coprune.bounds import Bounds, Device, Share
from coprune.cli.command import options_in
from coprune.cli.commands import COMMANDS, function_of
from coprune.errors import UserError, typed_on_the_command_line
from coprune.methods.registry import METHODS, find_method, method_settings
from coprune.options import Named, Nested, Options, checked, made, options_of, words
from coprune.pipeline.compare_job import CompareJob
from coprune.pipeline.jobs import Meaning, PruneJob, RecoverJob, TrainJob
from coprune.pipeline.settings import PruneSettings

JOBS = {"prune": PruneJob, "train": TrainJob, "recover": RecoverJob, "compare": CompareJob}


class Inner(Options, title="Inside"):
    """Something inside.

    Attributes:
        rate: how fast,
            at most 1.
    """

    rate: Share = 0.5
    hidden: int = 3


class Outer(Options, title="Outside"):
    """Something.

    Attributes:
        word: one of ``two``.
        names: several, separated by commas.
        many: how many.
    """

    word: Literal["a", "b"] = "a"
    names: Annotated[tuple[str, ...], Named("name")] = ()
    many: Annotated[int, Bounds(1, 8)] = 2
    inner: Annotated[Inner, Nested(Inner, "inner_", fields=("rate",))] = Inner()
    flat: Inner = Inner()


def test_fields_with_help_are_options():
    found = options_of(Outer)
    assert list(found) == ["word", "name", "many", "inner_rate", "rate"]
    assert found["inner_rate"].help == found["rate"].help == "how fast, at most 1."
    assert (found["word"].heading, found["rate"].heading) == ("Outside", "Inside")
    assert (found["many"].is_number, found["name"].is_list, found["word"].is_number) == (True, True, False)
    assert (found["many"].default, found["inner_rate"].default) == (2, None)


def test_settings_are_made_of_what_was_given():
    settings = made(Outer, {"name": ("x", "y"), "inner_rate": "0.25", "rate": 1, "many": None, "other": 3})
    assert settings == Outer(names=("x", "y"), inner=Inner(rate=0.25), flat=Inner(rate=1))
    assert made(Outer, {}) == Outer()


@pytest.mark.parametrize(
    ("values", "typed", "python"),
    [
        ({"word": "c"}, "--word c: Input should be 'a' or 'b'", "word=c: Input should be 'a' or 'b'"),
        ({"inner_rate": 50}, "--inner-rate 50: a number in (0, 1]; did you mean 0.5?", "inner_rate=50: a"),
        ({"rate": 2}, "--rate 2: a number in (0, 1]; did you mean 1?", "rate=2: a number"),
        ({"name": (3,)}, "--name 3: Input should be a valid string", "name=3: Input"),
    ],
)
def test_refusals_name_what_was_given(values, typed, python):
    with pytest.raises(UserError) as caught:
        made(Outer, values)
    assert str(caught.value).startswith(python)
    with typed_on_the_command_line(), pytest.raises(UserError) as caught:
        made(Outer, values)
    assert str(caught.value) == typed


def test_lists_are_separated_by_commas():
    assert words(" a, b,", name="skip") == ("a", "b")
    assert words("", name="skip") == ()
    with pytest.raises(UserError, match="separated by commas"):
        words(",", name="skip")


def test_devices_go_by_their_names():
    torch = pytest.importorskip("torch")
    assert checked("device", torch.device("cpu"), Device) == "cpu"
    with pytest.raises(UserError, match="device=gpu: known are auto, cpu, cuda"):
        checked("device", "gpu", Device)


def test_a_word_may_stand_for_a_number():
    level = Annotated[float | str, Bounds(0, 1, above=True, words=("knee",))]
    assert (checked("keep", "knee", level), checked("keep", "0.5", level)) == ("knee", 0.5)
    with pytest.raises(UserError, match=r"keep=kneee: a number in \(0, 1\]"):
        checked("keep", "kneee", level)


@pytest.mark.parametrize("name", [*JOBS])
def test_every_option_of_a_job_is_on_the_command_line_with_help(name):
    asked = {option.name: option for option in options_in(function_of(name))}
    assert asked.keys() == {*options_of(JOBS[name]), "out", "resume", "overwrite"}
    assert all(option.help for option in asked.values())


def test_python_takes_the_same_names_with_the_same_defaults():
    from coprune import prune

    known = options_of(PruneSettings)
    data = {
        "model",
        "train",
        "eval",
        "calibration",
        "calibration_samples",
        "validation",
        "options",
        "collect",
    }
    data |= Meaning.model_fields.keys()  # of the task, of which Python takes more than words
    parameters = {n: p for n, p in inspect.signature(prune).parameters.items() if n not in data}
    assert parameters.keys() <= known.keys()
    for name, parameter in parameters.items():
        # The epochs of the training at the end are 0 where nobody says how many.
        assert parameter.default in (known[name].default, 0 if name == "finetune_epochs" else None), name


def test_the_summaries_are_the_commands_own():
    for name, summary in COMMANDS.items():
        own = inspect.getdoc(function_of(name)).split(".")[0]
        assert own.split()[:2] == summary.split()[:2], name


def test_a_method_with_an_option_is_one_file_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "toy_method.py").write_text(
        "from coprune.bounds import Share\n"
        "from coprune.methods.base import Method\n"
        "from coprune.options import Options\n\n\n"
        "class ToySettings(Options):\n"
        '    """Toy.\n\n    Attributes:\n        sweetness: how sweet.\n    """\n\n'
        "    sweetness: Share = 0.5\n\n\n"
        "def choose(profile, settings, seed):\n    return ()\n\n\n"
        'TOY = Method("toy", "the sweetest", ToySettings, lambda _: (), choose, units=("inner",))\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(METHODS._places, "toy", "toy_method:TOY")
    try:
        assert options_of(PruneSettings)["sweetness"].help == "``toy``: how sweet."
        assert "sweetness" in {option.name for option in options_in(function_of("compare"))}
        settings = made(PruneSettings, {"method": "toy", "sweetness": "0.25"})
        assert method_settings(find_method("toy"), settings.options).sweetness == 0.25
        with pytest.raises(UserError, match=r"sweetness=2: a number in \(0, 1\]"):
            method_settings(find_method("toy"), {"sweetness": 2})
        with pytest.raises(UserError, match="sweetness is no option of method 'cosep' but of toy"):
            method_settings(find_method("cosep"), {"sweetness": 1})
    finally:
        sys.modules.pop("toy_method", None)


def test_the_page_of_options_is_what_the_help_says():
    sys.path.insert(0, str(Path(__file__).parent / "cli"))
    try:
        from render_options import rendered
    finally:
        sys.path.pop(0)
    page = Path(__file__).parents[1] / "docs" / "options.md"
    assert page.read_text() == rendered(), "run: make options-table"
