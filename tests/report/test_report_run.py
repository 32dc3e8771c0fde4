"""The page of a run: what it says, what it draws from, what it must never do."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import report_samples as samples

from coprune.errors import UserError
from coprune.plan import GroupDecision, Skipped
from coprune.report import formatting as words
from coprune.report import groups, render, sentences, write
from coprune.result import TAKEN_BACK, Code, Judged, Note

EVIL = "</script><b>&\"'<!--"


def test_the_headline_says_what_was_done_and_what_it_cost():
    plan = samples.plan()
    text = sentences.headline(plan, samples.result(plan)).replace(words.NB, " ")
    assert text == (
        "CoSeP kept 168 of 336 channels: 50.1 % of the MACs are gone, "
        "accuracy 93.84 % → 93.06 % (−0.78 points) after fine-tuning."
    )


@pytest.mark.parametrize(
    ("notes", "said"), [((), "reconstruction without labels"), ((TAKEN_BACK,), "without training")]
)
def test_the_headline_names_the_recovery_that_stayed(notes, said):
    plan = samples.plan()
    plan = plan.model_copy(update={"settings": {**plan.settings, "recovery": "reconstruction"}})
    result = samples.result(plan)
    stages = [
        s.model_copy(update={"name": "recovered"}) if s.name == "finetuned" else s for s in result.stages
    ]
    stages = [s for i, s in enumerate(stages) if s.name != "recovered" or i == len(stages) - 1]
    result = result.model_copy(update={"stages": tuple(stages), "notes": notes})
    assert said in sentences.headline(plan, result)


def recovered_result(plan, **changes):
    """A result whose last stage is the recovered one."""
    result = samples.result(plan)
    base, *_, last = result.stages
    return result.model_copy(
        update={"stages": (base, last.model_copy(update={"name": "recovered"})), **changes}
    )


def test_a_broken_limit_stands_in_the_headline_and_first_among_the_notes(folder, own):
    plan = samples.plan().model_copy(update={"budget": "max_drop=0.5"})
    judged = Judged(
        decision="max_drop", on="validation", samples=400, allowed=0.5, found=0.1, interval=(-0.2, 0.5)
    )
    broken = Note(Code.MORE_LOST, "held-out samples show a loss of 0.78 points")
    result = samples.result(plan, searched=True, judged=judged, notes=(broken, Note(Code.DATA, "other")))
    assert sentences.headline(plan, result).endswith("That is more than the 0.5 points allowed.")
    page = own(render(folder(plan, result))).replace(words.NB, " ")
    assert "at most 0.5 points lost, on 400 validation samples: 0.10 (−0.20 to 0.50) points lost" in page
    assert page.index("held-out samples show") < page.index("<li>other")
    assert "judged by accuracy on 400 validation samples." in page


def test_a_speed_that_cannot_be_told_is_not_bold(folder, own):
    plan = samples.plan()
    result = samples.result(plan)
    noisy = result.latency[0].model_copy(update={"ratio_interval": (0.8, 2.0)})
    page = own(render(folder(plan, result.model_copy(update={"latency": (noisy,)}))))
    assert "<strong>1.38×</strong>" not in page
    assert "1.38× (0.80–2.00), cannot be told" in page
    assert "no difference can be told (0.80–2.00×)" in page
    assert "<strong>1.38×</strong>" in own(render(folder(plan, result)))


def test_the_headline_of_what_was_not_recovered_or_was_trained_between_cuts():
    plan = samples.plan()
    back = recovered_result(plan, notes=(Note(Code.HANDED_BACK, "recovery would have lowered it"),))
    assert sentences.headline(plan, back).endswith("as it came, since recovery would have done harm.")
    trained = plan.model_copy(update={"settings": {**plan.settings, "between": {"epochs": 1}}})
    assert sentences.headline(trained, recovered_result(plan)).endswith(
        "after training between the cuts and recovery."
    )


def test_the_headline_of_a_model_that_was_cut_elsewhere():
    plan = samples.plan().model_copy(update={"method": "elsewhere"})
    assert sentences.headline(plan, recovered_result(plan)).startswith(
        "Pruned elsewhere to 168 of 336 channels: "
    )
    unknown = plan.model_copy(update={"groups": ()})
    assert sentences.headline(unknown, recovered_result(plan)).startswith("Pruned elsewhere: ")


def test_the_page_holds_every_figure(folder, own):
    plan = samples.plan()
    page = own(render(folder(plan, samples.result(plan, searched=True)))).replace(words.NB, " ")
    for expected in (
        "49.9 %",  # MACs: 20.24 / 40.55
        "51.3 %",  # parameters and bytes
        "71.9 %",  # peak memory
        "1.38×",
        "batch 1, 1 thread",
        "−72.12 points",
        "Promised: 2.00× fewer MACs",
        "The clock gives less than the MACs promise",
        "The knees alone would have kept 102 of 336 channels; the budget (keep_macs=0.5) kept 168",
        "In 1 of 9 groups the curve had no knee",
        "6 sizes were tried",
        "Calibration used 1,000 of 60,000",
        "ends in a residual sum",
        "torch 2.13.0",
        "not set",
        "4 min 24 s",
    ):
        assert expected in page, expected


def test_write_puts_the_page_into_the_run_folder(folder):
    plan = samples.plan()
    run = folder(plan, samples.result(plan))
    assert write(run) == run / "report.html"
    assert (run / "report.html").read_text() == render(run)


def test_the_page_asks_for_nothing(folder, own):
    plan = samples.plan()
    page = own(render(folder(plan, samples.result(plan))))
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", page, re.IGNORECASE)
    assert not re.search(r"@import|url\(|import\s*\(|fetch\s*\(|XMLHttpRequest", page)
    assert "http://" not in page
    assert "https://" not in page
    assert 'href="data:,"' in page
    assert "default-src 'none'" in page


def test_text_comes_first_and_the_library_is_small(folder, own):
    plan = samples.plan()
    page = render(folder(plan, samples.result(plan)))
    library = page[page.index("</footer>") :]
    assert "<script>/* plotly.js " in library
    assert "MIT licence" in library[: library.index("*/")]
    assert len(page) - len(own(page)) < 1_500_000
    assert own(page).index("<table>") < own(page).index("<template") < own(page).index("<script>")


def test_hostile_names_stay_text(folder, own, drawn):
    group = samples.ranked("a", 4).model_copy(update={"name": EVIL, "reason": EVIL})
    plan = samples.plan(
        [group],
        method=EVIL,
        budget=EVIL,
        settings={EVIL: EVIL},
        data={"name": EVIL},
        skipped=(Skipped(layer=EVIL, reason=EVIL),),
    )
    result = samples.result(plan, notes=(EVIL,), versions={EVIL: EVIL}, seconds={EVIL: 1.0})
    page = render(folder(plan, result))
    assert EVIL not in page
    assert "</script><b>" not in own(page)
    assert "<b>" not in re.sub("<script.*?</script>", "", own(page), flags=re.DOTALL)
    assert drawn(page)["overview/units"]["data"][0]["y"] == [EVIL]


def test_a_ranking_plan_shows_scores_and_no_knee(folder, own, drawn):
    plan = samples.plan([samples.ranked(n, s) for n, s in samples.NINE], method="magnitude")
    page = render(folder(plan, samples.result(plan)))
    assert "knees alone" not in own(page)
    found = drawn(page)
    assert [name for name in found if name.startswith("0/")] == ["0/scores"]
    assert [len(bars["x"]) for bars in found["0/scores"]["data"]] == [8, 8]
    assert len(found["overview/units"]["data"]) == 2  # no trace of knees


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        (("base", "pruned"), "21.72 % (−72.12 points) right after surgery, without recovery"),
        (("base", "pruned", "recovered"), "91.21 % (−2.63 points) after recovery without training"),
        (("base",), "nothing has been measured after it"),
        (("pruned",), "the base was not measured"),
        ((), "nothing has been measured after it"),
    ],
)
def test_missing_stages_and_times(folder, own, drawn, stages, says):
    plan = samples.plan()
    page = render(folder(plan, samples.result(plan, stages, timed=False)))
    text = own(page).replace(words.NB, " ")
    assert says in text
    assert "No time was taken in this run" in text
    found = drawn(page)
    assert len(found["stages"]["data"][0]["y"]) == len(stages) if stages else "stages" not in found


def test_no_groups_no_skipped_layers(folder, own):
    plan = samples.plan([], skipped=())
    page = own(render(folder(plan, samples.result(plan, units={"total": 0, "kept": 0}))))
    assert "kept 0 of 0 channels" in page
    assert "No layer was skipped" in page


def test_a_folder_without_a_plan_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no such plan"):
        render(tmp_path)


def test_representatives_by_hand():
    group = GroupDecision(
        name="a",
        members=(),
        size=7,
        kept=(1, 3, 4),
        reason="",
        clusters=(0, 0, 1, 1, 1, 1, 2),
        medoids=(1, 4, 6),
        position=((0, 0), (0, 0), (5, 5), (5, 5), (9, 9), (5, 6), (0, 0)),
    )
    # 2 and 5 are nearer to 3, but 4 is the medoid; 6 is its cluster's medoid and went all the same.
    assert groups.representatives(group) == [1, 1, 4, 3, 4, 4, None]
    assert groups.representatives(group.model_copy(update={"medoids": ()})) == [1, 1, 3, 3, 4, 3, None]
    assert groups.representatives(group.model_copy(update={"clusters": ()})) == [
        None,
        1,
        None,
        3,
        4,
        None,
        None,
    ]


def test_lists_of_another_length_are_left_out():
    group = samples.clustered("a", 16).model_copy(update={"clusters": (0, 1), "score": (1.0,)})
    seen = groups.fitted(group)
    assert (seen.clusters, seen.score, len(seen.position)) == ((), (), 16)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((1.2, 1.5), "gives less than the MACs promise"),
        ((1.95, 2.3), "gives what the MACs promise"),
        ((1.2, 2.1), "depends on where it is read"),
        ((0.8,), "Measured: slower (0.80× the speed) at batch 1, 1 thread"),
        ((1.0,), "no faster (1.00×)"),
    ],
)
def test_promised_against_measured(ratios, verdict):
    plan = samples.plan()
    result = samples.result(plan)
    first = result.latency[0]
    times = tuple(first.model_copy(update={"ratio": r}) for r in ratios)
    assert verdict in sentences.promise(result.model_copy(update={"latency": times}))


def test_figures_in_words():
    plain = [
        words.percent(0.4987),
        words.points(-0.0078),
        words.points(0.0078),
        words.si(40_550_000),
        words.si(9_999),
        words.si(1_093_632, "B"),
        words.duration(200),
        words.duration(7260),
        words.milliseconds(1.837),
    ]
    assert [p.replace(words.NB, " ") for p in plain] == [
        "49.9 %",
        "−0.78 points",
        "+0.78 points",
        "40.55 M",
        "9,999",
        "1.09 MB",
        "3 min 20 s",
        "2 h 1 min",
        "1.84 ms",
    ]


def test_torch_stays_out():
    code = "import sys, coprune.report; assert not {'torch', 'plotly'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
