"""The heads of all layers on the page: cells equal the plan, partners are the nearest, pairs have maps."""

from __future__ import annotations

import html
import json
import math
import re

import numpy as np
import pytest
import report_samples as samples

from coprune.methods.cahp import CAHP, CAHPSettings
from coprune.methods.cahp.distances import together
from coprune.methods.cahp.signatures import HeadSignatures
from coprune.plan import GroupDecision, Knee, Plan, Prediction
from coprune.report import formatting as words
from coprune.report import heads, pairs, render, write
from coprune.statistics import Calibration, Profile, collect
from coprune.store.profile import save_profile
from tiny_heads import CLASSES, bert, bert_groups, sentences

SEEN = {"name": "tsv:x", "fingerprint": "f", "statistics": "f"}


@pytest.fixture(scope="module")
def profile():
    model = bert(layers=3)
    groups = bert_groups(model)
    wanted = CAHP.needs(CAHPSettings(grid=4))
    tensors = collect(Calibration(model, groups, sentences(60, longest=8), CLASSES), wanted)
    return Profile(groups, tensors)


def plan_of(groups, method="cahp", **changes) -> Plan:
    given = {
        "budget": "keep_heads=0.5",
        "settings": {"grid": 4},
        "data": SEEN,
        "joint": method in words.JOINT,
    }
    return samples.plan(list(groups), method=method, **{**given, **changes})


@pytest.fixture(scope="module")
def decided(profile):
    made = CAHP.choose(profile, CAHPSettings(grid=4), 0).keep(5, why="asked")
    return plan_of(d.model_copy(update={"kind": "heads"}) for d in made)


@pytest.fixture
def run(decided, profile, folder):
    path = folder(decided, samples.result(decided))
    save_profile(path / "profile", profile.tensors, model=decided.model, data="f", groups={})
    return path


def layer(i, size=4, kept=(0,), **values) -> GroupDecision:
    return GroupDecision(
        name=f"enc.layer.{i}.att", members=(), size=size, kept=kept, reason="", kind="heads", **values
    )


def test_cells_equal_the_plan(run, decided, drawn_from):
    drawn = drawn_from(write(run).read_text())["heads"]
    assert (drawn["joint"], drawn["only"], drawn["plane"], drawn["score"]) == (True, True, True, "salience")
    assert [row["label"] for row in drawn["layers"]] == ["layer 0", "layer 1", "layer 2"]
    for row, group in zip(drawn["layers"], decided.groups, strict=True):
        assert [h for h, stays in enumerate(row["stays"]) if stays] == list(group.kept)
        assert row["cluster"] == list(group.clusters)
        assert row["score"] == pytest.approx(group.score, rel=1e-4)
        assert np.array(row["position"]) == pytest.approx(np.array(group.position), rel=1e-4)
    curve = drawn["curve"]
    assert [k for k, _ in curve["curve"]] == list(range(2, 12))
    assert (curve["size"], curve["at"]) == (12, 5)
    assert curve["kept"] == decided.units["kept"]
    assert curve["knee"]["k"] == decided.groups[0].knee.k


def test_what_belongs_to_all_layers_is_not_drawn_in_each(run, drawn_from):
    for group in drawn_from(render(run))["groups"]:
        assert (group["curve"], group["knee"], group["position"], group["stand"]) == ([], None, [], [])


def nearest_twins(groups):
    """Brute force: for every removed head all kept ones of its cluster, one after the other."""
    found = {}
    for i, g in enumerate(groups):
        for h in set(range(g.size)) - set(g.kept):
            best = None
            for j, other in enumerate(groups):
                for k in other.kept:
                    if other.clusters[k] == g.clusters[h]:
                        distance = math.dist(g.position[h], other.position[k])
                        if best is None or distance < best[0]:
                            best = (distance, (j, k))
            found[i, h] = best
    return found


@pytest.mark.parametrize("k", [1, 3, 5, 8, 11])
def test_partners_and_pairs_against_brute_force(profile, k):
    groups = list(CAHP.choose(profile, CAHPSettings(grid=4), 0).keep(k, why=""))
    twins = nearest_twins(groups)
    rows = heads.partners(groups, joint=True)
    for i, group in enumerate(groups):
        for h in range(group.size):
            assert rows[i][h] == (None if h in group.kept else twins[i, h][1])
    expected, used = [], set()
    for removed, (_, kept) in sorted(twins.items(), key=lambda t: (t[1][0], t[0])):
        if kept not in used:
            expected.append((removed, kept))
            used.add(kept)
    assert pairs.pick(groups, joint=True) == expected[:4]


def test_maps_are_the_mean_over_all_samples(run, decided, profile):
    shown = pairs.view(decided, run)
    gathered = [g for g in profile.groups if g.kind == "heads"]
    moments = together([profile.of(HeadSignatures(4), g) for g in gathered])
    mean = ((moments.count.view(-1, 1, 1) * moments.mean).sum(0) / moments.count.sum()).numpy()
    every = np.corrcoef(mean)
    assert shown["typical"] == pytest.approx(
        np.median([every[i, j] for i in range(12) for j in range(i)]), abs=1e-3
    )
    assert shown["shown"]
    for pair in shown["shown"]:
        one, other = (4 * layer + head for layer, head in (pair["removed"], pair["kept"]))
        assert pair["side"] == 4
        assert pair["correlation"] == pytest.approx(every[one, other], abs=1e-3)
        top = np.percentile(mean[[one, other]], 99.5)
        for drawn, row in zip(pair["maps"], (one, other), strict=True):
            assert drawn == np.rint(99 * np.minimum(mean[row] / top, 1)).astype(int).tolist()


def test_without_maps_of_this_run_no_pairs_and_no_word_of_them(run, decided, own, profile):
    said = "the kept ones that stand for them"
    assert said in own(render(run))
    file = run / "profile" / "head_signatures-grid4.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert said not in own(render(run))
    file.unlink()
    assert said not in own(render(run))
    file.write_bytes(whole)
    save_profile(run / "profile", {}, model=decided.model, data="other samples", groups={})
    assert said not in own(render(run))
    save_profile(run / "profile", profile.tensors, model=decided.model, data="f", groups={})
    assert said in own(render(run))


def test_fine_maps_are_averaged_in_blocks():
    maps = np.arange(2 * 96 * 96, dtype=float).reshape(2, 96, 96)
    assert pairs._coarser(maps) == pytest.approx(maps.reshape(2, 48, 2, 48, 2).mean((2, 4)))
    uneven = pairs._coarser(np.ones((1, 65, 65)))
    assert uneven.shape == (1, 48, 48)
    assert uneven == pytest.approx(np.ones((1, 48, 48)))


def test_a_head_given_back_stands_beside_the_chosen_one():
    near = layer(0, 2, (0,), clusters=(0, 0), position=((0.0, 0.0), (4.0, 0.0)), medoids=(0,))
    back = layer(1, 1, (0,), clusters=(0,), position=((5.0, 0.0),))
    assert heads.partners([near, back], joint=True) == [[None, (1, 0)], [None]]


def test_complementary_names_the_foremost_and_pairs_the_largest_part(folder, drawn_from, own):
    took = (
        Prediction(unit=1, explained=0.7, by=((0, 0.4), (3, 0.3))),
        Prediction(unit=2, explained=0.95, by=((3, 0.9),)),
    )
    groups = [layer(0, kept=(0, 3), predicted=took), layer(1, kept=(0, 1, 2, 3))]
    plan = plan_of(groups, "complementary")
    drawn = drawn_from(render(folder(plan, samples.result(plan))))["heads"]
    assert drawn["layers"][0]["by"] == [None, [0, 0], [0, 3], None]
    explained = drawn["layers"][0]["explained"]
    assert [e and e.replace(words.NB, " ") for e in explained] == [None, "70 %", "95 %", None]
    assert (drawn["joint"], drawn["plane"], drawn["curve"], drawn["score"]) == (False, False, None, "")
    assert pairs.pick(groups, joint=False) == [((0, 2), (0, 3)), ((0, 1), (0, 0))]
    assert "kept 6 of 8 heads" in own(render(folder(plan, samples.result(plan))))


def test_an_old_plan_tells_by_its_method_or_budget():
    old = [layer(i).model_copy(update={"kind": ""}) for i in range(2)]
    assert heads.view(plan_of(old, "michel", joint=False))["joint"]
    assert heads.view(plan_of(old, "complementary"))["only"]
    assert heads.view(plan_of(old, "complementary", budget="keep_macs=0.5")) is None


def test_mixed_units_keep_the_overview(folder, own, drawn_from):
    plan = plan_of([layer(0), samples.ranked("ffn", 8).model_copy(update={"kind": "neurons"})], "magnitude")
    page = render(folder(plan, samples.result(plan)))
    assert 'id="overview"' in page
    assert "kept 5 of 12 units" in own(page)
    assert [row["place"] for row in drawn_from(page)["heads"]["layers"]] == [0]


def test_channels_have_no_heads(folder, own, drawn_from):
    plan = samples.plan()
    page = render(folder(plan, samples.result(plan)))
    data = drawn_from(page)
    assert data["heads"] is None
    assert data["pairs"] == {"shown": [], "typical": None}
    assert "Which heads stayed" not in own(page)
    assert data["groups"][0]["knee"]["k"] == plan.groups[0].knee.k


def test_lists_that_do_not_fit_are_left_out():
    odd = [
        layer(0, clusters=(0, 0, 0, 0), position=((0.0, math.nan),) * 4),
        layer(1, clusters=(1,), score=(1.0,)),
    ]
    drawn = heads.view(plan_of(odd))
    assert (drawn["plane"], drawn["score"], drawn["curve"]) == (False, "", None)
    assert heads.partners(odd, joint=True) == [[None] * 4, [None] * 4]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (
            ["bert.encoder.layer.0.attention.self", "bert.encoder.layer.11.attention.self"],
            ["layer 0", "layer 11"],
        ),
        (["layers.0.blocks.1.attn", "layers.1.blocks.0.attn"], ["layer 0.1", "layer 1.0"]),
        (["blocks.7.attn"], ["layer 7"]),
        (["encoder.0.attn", "decoder.0.attn"], ["encoder.0.attn", "decoder.0.attn"]),
        (["attn"], ["attn"]),
    ],
)
def test_short_names_of_layers(names, short):
    assert heads.labels(names) == short


@pytest.mark.parametrize(
    ("budget", "knee", "says"),
    [
        (
            "keep_heads=0.5",
            5,
            "The knee alone would have kept 5 of 8 heads; the budget (keep_heads=0.5) kept 2.",
        ),
        ("knee", 2, "The knee decided: 2 of 8 heads stay."),
        (
            "knee",
            1,
            "The knee decided: 1 of 8 heads stay, and 1 more, so that no layer loses all of its heads.",
        ),
    ],
)
def test_one_knee_for_all_layers(budget, knee, says):
    told = {"knee": Knee(k=knee, rule="kneedle"), "curve": ((2, 0.5),)}
    plan = plan_of([layer(0, **told), layer(1, **told)], budget=budget)
    assert words.knees(plan) == says
    assert [k.k for k in plan.knees] == [knee]
    assert [k.k for k in plan.model_copy(update={"joint": False}).knees] == [knee, knee]


def test_the_page_stays_small(run, own):
    assert len(own(render(run)).encode()) < 120_000


LOOKER = """
<script>
redraw();
const canvases = [...document.querySelectorAll("#pairs canvas")];
document.body.dataset.canvases = JSON.stringify(canvases.map((c) => [c.width, c.getAttribute("aria-label")]));
const cells = byId("heads-map").data.slice(0, 2).map((t) => t.z.map((row) => row.map((v) => v !== null)));
document.body.dataset.cells = JSON.stringify(cells);
document.body.dataset.hover = byId("heads-map").data[1].text.flat().find((t) => t.includes("(removed)"));
byId("heads-map").emit("plotly_click", { points: [{ y: 2 }] });
document.body.dataset.group = byId("group").value;
document.body.dataset.wide = String(document.documentElement.scrollWidth > window.innerWidth);
</script>
"""


@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser(run, decided, chromium, width):
    page = write(run)
    looked = page.with_name("looked.html")
    looked.write_text(page.read_text().replace("</body>", LOOKER + "</body>"))
    seen = chromium(looked, width=width)
    assert (seen.console, seen.requests) == ([], [])
    told = {k: html.unescape(v) for k, v in re.findall(r'data-(\w+)="([^"]*)"', seen.dom)}
    kept = [[h in g.kept for h in range(4)] for g in decided.groups]
    assert json.loads(told["cells"]) == [kept, [[not yes for yes in row] for row in kept]]
    shown = pairs.view(decided, run)["shown"]
    assert [side for side, _ in json.loads(told["canvases"])] == [4] * 2 * len(shown)
    (layer, head), by = shown[0]["removed"], shown[0]["kept"]
    assert json.loads(told["canvases"])[0][1] == f"Mean attention map of layer {layer}, head {head}, removed"
    assert "salience" in told["hover"]
    assert "stands for it: layer" in told["hover"]
    assert (told["group"], told["wide"]) == ("2", "false")
    assert f"layer {by[0]}, head {by[1]}: kept" in seen.dom
    for chart in ("heads-map", "heads-plane", "heads-curve", "heads-score"):
        after = seen.dom[seen.dom.index(f'<div id="{chart}"') :]
        assert "main-svg" in after[:3000], chart
