"""What methods read beside inputs, and what happens where it is not there."""

from pathlib import Path

import pytest

from coprune.errors import UserError
from coprune.methods.base import Lack
from coprune.methods.registry import METHODS, check_reads, method_settings
from coprune.pipeline.compare import able

CLASSES = {"cosep", "cahp", "medoid"}
LOSS = {"taylor", "hessian", "michel", "cahp"}


def lacks(*, classes, loss):
    return {n: m.lacking(m.settings(), classes=classes, loss=loss) for n, m in METHODS.items()}


def test_every_method_says_what_it_reads():
    assert {n for n, lack in lacks(classes=False, loss=True).items() if lack is Lack.CLASSES} == CLASSES
    assert {n for n, lack in lacks(classes=True, loss=False).items() if lack is Lack.LOSS} == LOSS
    assert {n for n, lack in lacks(classes=False, loss=False).items() if lack} == CLASSES | LOSS
    assert not any(lacks(classes=True, loss=True).values())


def test_the_page_of_methods_is_what_they_say():
    page = Path(__file__).parents[2] / "docs" / "baselines.md"
    rows = []
    for name, method in METHODS.items():
        found = {statistic.reads for statistic in method.needs(method.settings())}
        reads = " and ".join(word for word in ("classes", "loss") if word in found) or "nothing"
        of = ", ".join(method.units) if len(method.units) < 4 else "all"
        rows.append(f"| `{name}` | {method.summary} | {of} | {reads} | `{method.recovery}` |")
    assert "\n".join(rows) in page.read_text()


def test_settings_decide_too():
    method = METHODS["complementary"]
    options = method_settings(method, {"scatter": 0.3})
    assert method.lacking(options, classes=False, loss=False) is Lack.CLASSES
    with pytest.raises(
        UserError, match=r"'complementary' with scatter=0.3: it looks at classes.*complementary"
    ):
        check_reads(method, options, classes=False, loss=False)
    check_reads(method, method.settings(), classes=False, loss=False)


def test_a_refusal_names_methods_that_can_choose_the_same_units():
    method = METHODS["cahp"]
    with pytest.raises(UserError) as refused:
        check_reads(method, method.settings(), classes=False, loss=False)
    named = str(refused.value).partition("neither: ")[2].split(", ")
    assert "\n" not in str(refused.value)
    assert {"complementary", "head_magnitude", "random"} <= set(named)
    assert not {"fpgm", "bn_scale", "taylor", "cahp"} & set(named)


def chosen(*names):
    return {name: (METHODS[name], METHODS[name].settings()) for name in names}


def test_a_comparison_leaves_out_what_cannot_run_by_name():
    methods, left_out = able(chosen("complementary", "cosep", "taylor"), classes=False, loss=False)
    assert list(methods) == ["complementary"]
    assert [str(one).partition(": it ")[::2] for one in left_out] == [
        ("cosep is left out", "looks at classes, and these samples have no class each"),
        ("taylor is left out", "takes gradients of a loss, and these samples have no targets to take one on"),
    ]
    assert able(chosen("cosep", "taylor"), classes=True, loss=True)[1] == ()
    with pytest.raises(UserError, match="method 'cosep': it looks at classes"):
        able(chosen("cosep", "taylor"), classes=False, loss=False)
