"""How page and terminal speak of a metric: its name, its direction, its unit; and of an agreement."""

from __future__ import annotations

import re

import pytest
import report_samples as samples

from coprune.cli.compare import print_comparison
from coprune.cli.inspect import inspect
from coprune.cli.summary import summarise
from coprune.comparison import Comparison
from coprune.report import formatting as words
from coprune.report import metric, render, sentences
from coprune.report.compare import render_compare
from coprune.report.metric import MetricWords
from coprune.result import Code, Judged, Note, Result, shown_loss, shown_value

OF_CLASSES = re.compile(r"top-?1|accura\w*|\bclass(?:es)?\b|\bpoints\b", re.IGNORECASE)


def plain(text):
    return text.replace(words.NB, " ")


def run_of(name, values, *, rises=True, unit="", task="segmentation", budget="max_drop=0.01", allowed=0.01):
    """A plan and a result whose samples gave these values, with a search that judged by them."""
    plan = samples.plan(method="complementary", budget=budget)
    plan = plan.model_copy(update={"settings": {**plan.settings, "task": task}})
    said = {"metric": name, "higher_is_better": rises, "unit": unit}
    losses = [(values[0] - v) * (1 if rises else -1) * (100 if unit else 1) for v in values]
    probes = [
        {"macs": m, "value": v, "ok": ok, "drop": lost, "low": lost - 0.001, "high": lost + 0.002}
        for m, v, lost, ok in zip(
            (1.0, 0.05, 0.4, 0.6), values, losses, (True, False, False, True), strict=True
        )
    ]
    probes[-1]["chosen"] = True
    found = (losses[-1], losses[-1] - 0.001, losses[-1] + 0.002)
    judged = Judged(
        decision="max_drop" if allowed else "knee", on="validation", samples=400, allowed=allowed,
        found=found[0], interval=found[1:], **said,
    )  # fmt: skip
    result = samples.result(plan, search=tuple(probes), judged=judged, notes=())
    seen = {"samples": 512, **said}
    stages = [
        s.model_copy(update={**seen, "value": v, "calibration": None, "interval": (v - 0.01, v + 0.01)})
        for s, v in zip(result.stages, values, strict=True)
    ]
    return plan, result.model_copy(update={"stages": tuple(stages)})


MIOU = ("miou", (0.9345, 0.12, 0.9, 0.9314))
PERPLEXITY = ("perplexity", (53.6, 40210.0, 71.28, 67.6))
AGREEMENT = ("agreement", (1.0, 0.31, 0.9512, 0.973))
LOWER = {"rises": False, "task": "text-generation", "budget": "max_drop=20", "allowed": 20.0}
AGREES = {"unit": "%", "task": "text-generation", "budget": "max_drop=3", "allowed": 3.0}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (run_of(*MIOU), "miou 0.9345 → 0.9314 (0.0031 lost) after fine-tuning."),
        (run_of(*PERPLEXITY, **LOWER), "perplexity 53.6 → 67.6 (14 more) after fine-tuning."),
        (
            run_of(*AGREEMENT, **AGREES),
            "what is left agrees with the unpruned model on 97.30 % of the tokens after fine-tuning.",
        ),
        (
            run_of("cosine", AGREEMENT[1], task="feature-extraction"),
            "what is left agrees with the unpruned model to a mean cosine of 0.973 after fine-tuning.",
        ),
        (
            run_of("r2", AGREEMENT[1], task="outputs"),
            "what is left agrees with the unpruned model to an R² of 0.973 after fine-tuning.",
        ),
        # With targets the base itself is not perfect, and the figure is no agreement.
        (run_of("r2", (0.8, 0.1, 0.7, 0.81)), "r2 0.8 → 0.81 (0.01 gained) after fine-tuning."),
        (
            run_of("pixel_accuracy", (0.95, 0.3, 0.92, 0.93), unit="%"),
            "pixel accuracy 95.00 % → 93.00 % (−2.00 points) after fine-tuning.",
        ),
    ],
)
def test_the_headline_of_every_kind_of_metric(made, said):
    head = "Complementary pruning kept 168 of 336 channels: 50.1 % of the MACs are gone, "
    assert plain(sentences.headline(*made)) == head + said


@pytest.mark.parametrize(
    ("made", "judged", "held_out"),
    [
        (
            run_of(*MIOU),
            "at most 0.01 miou lost, on 400 validation samples: 0.0031 (0.0021 to 0.0051) miou lost",
            "miou 0.9314 (0.9214 to 0.9414) on 512 samples",
        ),
        (
            run_of(*PERPLEXITY, **LOWER),
            "at most 20 more perplexity, on 400 validation samples: 14 (14 to 14) more perplexity",
            "perplexity 67.6 (67.59 to 67.61) on 512 samples",
        ),
        (
            run_of(*AGREEMENT, **AGREES),
            "at most 3 points lost, on 400 validation samples: 2.70 (2.70 to 2.70) points lost",
            "agrees with the unpruned model on 97.30 % (96.30 to 98.30) of the tokens, on 512 samples",
        ),
    ],
)
def test_what_judged_and_what_was_held_out(made, judged, held_out):
    plan, result = made
    assert sentences.judged(result.judged, metric.of_run(plan, result)) == judged
    assert plain(sentences.held_out(plan, result)) == held_out


def test_a_value_without_an_interval_is_said_without():
    plan, result = run_of(*PERPLEXITY, **LOWER)
    last = result.stages[-1].model_copy(update={"interval": None})
    result = result.model_copy(update={"stages": (*result.stages[:-1], last)})
    assert sentences.held_out(plan, result) == "perplexity 67.6 on 512 samples"


def test_more_lost_than_allowed_is_said_in_the_metrics_own_unit():
    for made, said in (
        (run_of(*MIOU), "the 0.01 miou allowed."),
        (run_of(*PERPLEXITY, **LOWER), "the 20 perplexity allowed."),
        (run_of(*AGREEMENT, **AGREES), "the 3 points allowed."),
    ):
        plan, result = made
        broken = result.model_copy(update={"notes": (Note(Code.MORE_LOST, "more"),)})
        assert sentences.headline(plan, broken).endswith(f"That is more than {said}")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            run_of(*MIOU),
            (
                "Miou on the held-out split, which no decision has seen; higher is better.",
                ">Miou ↑</th>",
                ">0.0031 lost</td>",
                "judged by miou on 400 validation samples. Dot: within the allowed drop.",
                "The allowed drop is 0.01 miou.",
                ">Miou lost (86 %)</th>",
                "<dt>Task</dt><dd>segmentation</dd>",
            ),
        ),
        (
            run_of(*PERPLEXITY, **LOWER),
            (
                "Perplexity on the held-out split, which no decision has seen; lower is better.",
                ">Perplexity ↓</th>",
                ">14 more</td>",
                "judged by perplexity on 400 validation samples. Dot: within the allowed rise.",
                "The allowed rise is 20 perplexity.",
                ">More perplexity (86 %)</th>",
                "<dt>Task</dt><dd>text-generation</dd>",
            ),
        ),
        (
            run_of("cosine", AGREEMENT[1], task="feature-extraction"),
            (
                "Mean cosine to the unpruned model's outputs on the held-out split, which",
                ">Cosine ↑</th>",
                "judged by mean cosine to the unpruned model's outputs on 400 validation samples.",
                ">Cosine lost (86 %)</th>",
            ),
        ),
    ],
)
def test_the_page_speaks_of_the_metric_and_of_no_classes(folder, own, made, expected):
    page = plain(own(render(folder(*made)))).replace("&#39;", "'")
    for text in expected:
        assert text in page, text
    seen = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert OF_CLASSES.findall(seen) == []


def test_an_agreement_in_per_cent_is_no_accuracy(folder, own):
    page = plain(own(render(folder(*run_of(*AGREEMENT, **AGREES)))))
    assert "agrees with the unpruned model on 97.30 %" in page
    assert "−2.70 points" in page
    assert "judged by agreement with the unpruned model on 400" in page
    assert not re.search("top-?1|accura", page, re.IGNORECASE)


def test_charts_are_in_the_metrics_unit_and_direction(folder, drawn):
    found = drawn(render(folder(*run_of(*PERPLEXITY, **LOWER))))
    steps, near, whole = found["stages"], found["search/near"], found["search/all"]
    assert steps["data"][0]["y"] == [53.6, 40210, 71.28, 67.6]
    assert steps["data"][0]["text"][1:3] == ["40,210<br>+40,160", "71.28<br>+17.68"]
    # One that is a thousand times worse would hide what the others tell.
    assert steps["layout"]["yaxis"]["type"] == "log"
    assert steps["layout"]["yaxis"]["title"]["text"] == "perplexity, lower is better (logarithmic)"
    assert near["layout"]["shapes"][0]["y0"] == pytest.approx(53.6 + 20)
    assert near["layout"]["annotations"][0]["text"] == " allowed rise: 20 perplexity "
    assert near["layout"]["yaxis"]["title"]["text"] == "perplexity, lower is better"
    assert near["layout"]["yaxis"]["range"][1] < 100
    assert "range" not in whole["layout"]["yaxis"]
    chosen = near["data"][-1]
    assert plain(chosen["hovertext"][0]) == (
        "60.0 % of the MACs<br>perplexity 67.6<br>more perplexity: 14 (14 to 14)<br>chosen"
    )
    # The loss is at most 0.002 greater, so the perplexity may be that much higher.
    assert chosen["error_y"]["array"] == [pytest.approx(0.002)]
    assert chosen["error_y"]["arrayminus"] == [pytest.approx(0.001)]


def test_a_share_of_the_unpruned_value_is_drawn_where_it_lies(folder, drawn):
    plan, result = run_of(*MIOU, budget="max_drop=1%", allowed=0.00934512)
    assert sentences.judged(result.judged).startswith("at most 0.009345 miou lost, on")
    found = drawn(render(folder(plan, result)))
    assert found["search/near"]["layout"]["shapes"][0]["y0"] == pytest.approx(0.9345 * 0.99)
    unjudged = drawn(render(folder(plan, result.model_copy(update={"judged": None}))))
    assert unjudged["search"]["layout"].get("shapes", []) == []  # one per cent is not 1


def compared(name, values, **base):
    """Two methods, two seeds, one budget; the second method is nearer to the base."""
    rows = [
        {"method": m, "budget": 0.5, "seed": s, "macs_ratio": 0.5, "pruned": v, "recovery": "none"}
        for m, pair in zip(("random", "magnitude"), values, strict=True)
        for s, v in enumerate(pair)
    ]
    content = {"schema": 1, "base": {"metric": name, "macs": 10, "params": 5, **base}, "rows": rows}
    return Comparison.model_validate(content)


BY_PERPLEXITY = compared(
    "perplexity", ((90.0, 94.0), (60.0, 61.0)), higher_is_better=False, unit="", value=53.6
)
BY_MIOU = compared("miou", ((-0.2, -0.1), (-0.01, -0.02)), unit="", value=0.4)


def test_a_comparison_by_a_metric_that_is_better_when_lower(own, drawn):
    page = render_compare(BY_PERPLEXITY)
    text = plain(own(page))
    assert "2 methods at 1 budget: Magnitude (L1) comes first (perplexity 60.5)." in text
    assert "Perplexity against MACs" in text
    assert "Held-out perplexity, lower is better. Point: mean over seeds" in text
    assert "Perplexity, lower is better, mean ± sample standard deviation over seeds" in text
    assert "<strong>60.50 ± 0.71</strong>" in text
    assert "92.00 ± 2.83" in text
    assert ">+6.90</td>" in text
    assert not re.search(r"top-?1|accura|in points", text, re.IGNORECASE)
    (chart,) = [figure for key, figure in drawn(page).items() if key != "theme"]
    assert chart["layout"]["yaxis"]["title"]["text"] == "perplexity, lower is better"
    assert chart["layout"]["shapes"][0]["y0"] == 53.6
    assert plain(chart["data"][1]["hovertext"][0]).endswith("60.5 (60.00 – 61.00, 2 seeds)")


def test_a_comparison_by_a_metric_that_is_better_when_higher_marks_the_best_even_below_zero(own):
    text = plain(own(render_compare(BY_MIOU)))
    assert "Magnitude (L1) comes first (miou −0.015)." in text
    assert "<strong>−0.0150 ± 0.0071</strong>" in text
    assert ">−0.4150</td>" in text


def test_a_logarithmic_chart_has_its_base_where_it_belongs(drawn):
    far = compared("perplexity", ((9e4, 9e5), (60.0, 61.0)), higher_is_better=False, unit="", value=100.0)
    (chart,) = [figure for key, figure in drawn(render_compare(far)).items() if key != "theme"]
    assert chart["layout"]["yaxis"]["type"] == "log"
    assert chart["layout"]["shapes"][0]["y0"] == 100
    assert chart["layout"]["annotations"][0]["y"] == pytest.approx(2)  # Plotly wants the logarithm here


def test_the_terminal_says_it_too(folder, capsys, monkeypatch):
    monkeypatch.setattr("coprune.store.model.needs_trust", lambda run: False)
    run = folder(*run_of(*PERPLEXITY, **LOWER))
    summarise(run)
    said = plain(capsys.readouterr().out)
    assert "perplexity ↓" in said
    rows = [line.split() for line in said.splitlines() if line.startswith(("base", "pruned", "finetuned"))]
    assert [row[1] for row in rows] == ["53.60", "40,210", "67.60"]
    assert "held out perplexity 67.6 (67.59 to 67.61) on 512 samples" in said
    inspect(run)
    said += (looked := plain(capsys.readouterr().out))
    assert "text-generation: perplexity 53.6 → 67.6 (14 more), lower is better" in looked
    print_comparison(BY_PERPLEXITY)
    said += (table := plain(capsys.readouterr().out))
    assert "base 53.60 at 0.00 M MACs; perplexity, lower is better, mean±deviation" in table
    assert "pruned ↓" in table
    assert table.index("magnitude") < table.index("random")
    assert OF_CLASSES.findall(said) == []


def test_an_agreement_in_the_terminal(folder, capsys, monkeypatch):
    monkeypatch.setattr("coprune.store.model.needs_trust", lambda run: False)
    summarise(folder(*run_of(*AGREEMENT, **AGREES)))
    said = plain(capsys.readouterr().out)
    assert "agreement ↑" in said
    assert "100.00%" in said
    assert "agrees with the unpruned model on 97.30 % (96.30 to 98.30) of the tokens" in said
    assert not re.search("top-?1|accura", said)


def test_files_of_before_speak_of_top1():
    plan = samples.plan()
    content = samples.result(plan).model_dump(mode="json", by_alias=True)
    for stage in content["stages"]:
        for field in ("metric", "higher_is_better", "unit", "samples", "interval"):
            stage.pop(field)
    for schema in (1, 2):
        old = Result.model_validate({**content, "schema": schema, "notes": []})
        assert metric.of_run(plan, old) == MetricWords(base=0.9384)
        assert "accuracy 93.84 % → 93.06 % (−0.78 points)" in plain(sentences.headline(plan, old))
    (_, *without) = samples.result(plan).stages
    assert metric.of_run(plan, samples.result(plan, ())).name == "top1"
    unbased = samples.result(plan).model_copy(update={"stages": tuple(without)})
    assert "accuracy 93.06 % after fine-tuning; the base was" in plain(sentences.headline(plan, unbased))


def test_values_and_losses_by_hand():
    assert [shown_value(v, "") for v in (0.93449, 53.6, 40210.4, 1.5e12, -0.31)] == [
        "0.9345",
        "53.6",
        "40,210",
        "1.5e+12",
        "-0.31",
    ]
    # As many decimals as values of that size have with four figures; noise is nothing.
    losses = [
        (0.00308, 0.93),
        (14.0543, 53.6),
        (1.1e-5, 3.2e-5),
        (-1e-9, 1.0),
        (-0.0031, 0.9),
        (40156.4, 53.6),
    ]
    assert [shown_loss(loss, "", about=about) for loss, about in losses] == [
        "0.0031",
        "14.05",
        "1.1e-05",
        "0",
        "-0.0031",
        "40,160",
    ]
    assert [shown_loss(loss, "%") for loss in (0.214, -0.001)] == ["0.21", "0.00"]
