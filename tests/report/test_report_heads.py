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
from coprune.report import groups, heads, pairs, render, write
from coprune.report.sentences import knees
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


def drawn_heads(plan: Plan) -> heads.Heads:
    """The heads of a plan as its page shows them."""
    plan = words.completed(plan)
    found = heads.of_plan(plan.model_copy(update={"groups": tuple(groups.fitted(g) for g in plan.groups)}))
    assert found is not None
    return found


def layer(i, size=4, kept=(0,), **values) -> GroupDecision:
    return GroupDecision(
        name=f"enc.layer.{i}.att", members=(), size=size, kept=kept, reason="", kind="heads", **values
    )


def test_cells_equal_the_plan(run, decided, drawn):
    found = drawn(write(run).read_text())
    kept, removed = found["heads-map"]["data"]
    rows = {"layer 0": 0, "layer 1": 1, "layer 2": 2}
    at = {
        (rows[y], x): score for y, x, score in zip(kept["y"], kept["x"], kept["marker"]["color"], strict=True)
    }
    assert set(at) == {(i, h) for i, g in enumerate(decided.groups) for h in g.kept}
    at |= {
        (rows[y], x): s
        for y, x, s in zip(removed["y"], removed["x"], removed["marker"]["color"], strict=True)
    }
    assert at == {
        (i, h): pytest.approx(g.score[h]) for i, g in enumerate(decided.groups) for h in range(g.size)
    }
    assert kept["customdata"] == [i for i, g in enumerate(decided.groups) for _ in g.kept]
    first = f"<b>layer 0, head {decided.groups[0].kept[0]}</b> (kept)<br>salience "
    assert kept["hovertext"][0].startswith(first)
    assert f"cluster {decided.groups[0].clusters[decided.groups[0].kept[0]]}, with" in kept["hovertext"][0]
    spokes, hollow, filled = found["heads-plane"]["data"]
    places = [g.position[h] for g in decided.groups for h in g.kept]
    assert pytest.approx(np.array(places)) == np.array([filled["x"], filled["y"]]).T
    assert len(hollow["x"]) == len(spokes["x"]) // 3 == 12 - len(places)
    assert found["heads-curve"]["data"][0]["x"] == list(range(2, 12))
    assert [len(bars["x"]) for bars in found["heads-score"]["data"]] == [len(places), 12 - len(places)]
    everything = drawn_heads(decided)
    assert (everything.at, everything.units.decision.size) == (5, 12)
    assert everything.units.decision.knee.k == decided.groups[0].knee.k


def test_what_belongs_to_all_layers_is_not_drawn_in_each(run, drawn):
    assert [name for name in drawn(render(run)) if name[0].isdigit()] == []


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
    layers = [
        d.model_copy(update={"kind": "heads"})
        for d in CAHP.choose(profile, CAHPSettings(grid=4), 0).keep(k, why="")
    ]
    twins = nearest_twins(layers)
    all_heads = drawn_heads(plan_of(layers))
    for unit, by in enumerate(all_heads.units.by):
        i, h = all_heads.owners[unit]
        assert all_heads.owners[by] == ((i, h) if h in layers[i].kept else twins[i, h][1])
    expected, used = [], set()
    for removed, (_, kept) in sorted(twins.items(), key=lambda t: (t[1][0], t[0])):
        if kept not in used:
            expected.append((removed, kept))
            used.add(kept)
    found = [tuple(all_heads.owners[u] for u in pair) for pair in pairs.pick(all_heads.units)]
    assert found == expected[:4]


def test_maps_are_the_mean_over_all_samples(run, decided, profile):
    found = pairs.of_run(drawn_heads(decided), decided, run)
    gathered = [g for g in profile.groups if g.kind == "heads"]
    moments = together([profile.of(HeadSignatures(4), g) for g in gathered])
    mean = ((moments.count.view(-1, 1, 1) * moments.mean).sum(0) / moments.count.sum()).numpy()
    every = np.corrcoef(mean)
    typical = np.median([every[i, j] for i in range(12) for j in range(i)])
    assert found.typical == pytest.approx(typical, abs=1e-3)
    assert found.shown
    for pair in found.shown:
        both = mean[[pair.removed, pair.kept]]
        assert pair.correlation == pytest.approx(every[pair.removed, pair.kept], abs=1e-3)
        expected = np.rint(100 * np.minimum(both / np.percentile(both, 99.5), 1)).reshape(2, 4, 4)
        for figure, levels in zip(pair.maps, expected, strict=True):
            assert np.array_equal(np.array(figure.data[0].z), levels)


def test_without_maps_of_this_run_no_pairs_and_no_word_of_them(run, decided, own, profile):
    said = "the kept ones that represent them"
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
    units = drawn_heads(plan_of([near, back])).units
    assert units.by == [0, 2, 2]


def test_complementary_names_the_foremost_and_pairs_the_largest_part(folder, drawn, own):
    took = (
        Prediction(unit=1, explained=0.7, by=((0, 0.4), (3, 0.3))),
        Prediction(unit=2, explained=0.95, by=((3, 0.9),)),
    )
    plan = plan_of([layer(0, kept=(0, 3), predicted=took), layer(1, kept=(0, 1, 2, 3))], "complementary")
    page = render(folder(plan, samples.result(plan)))
    found = drawn(page)
    assert [name for name in found if name.startswith("heads-")] == ["heads-map"]
    removed = [text.replace(words.NB, " ") for text in found["heads-map"]["data"][1]["hovertext"]]
    assert removed == [
        "<b>layer 0, head 1</b> (removed)<br>0·0 and 0·3 predict 70 % of it",
        "<b>layer 0, head 2</b> (removed)<br>the kept ones together predict 95 % of it, mostly 0·3 (90 %)",
    ]
    assert pairs.pick(drawn_heads(plan).units) == [(2, 3), (1, 0)]
    assert "kept 6 of 8 heads" in own(page)


def test_an_old_plan_tells_by_its_method_or_budget():
    old = [layer(i).model_copy(update={"kind": ""}) for i in range(2)]
    assert drawn_heads(plan_of(old, "michel", joint=False)).joint
    assert drawn_heads(plan_of(old, "complementary")).places == (0, 1)
    assert heads.of_plan(words.completed(plan_of(old, "complementary", budget="keep_macs=0.5"))) is None


def test_mixed_units_keep_the_overview(folder, own, drawn):
    plan = plan_of([layer(0), samples.ranked("ffn", 8).model_copy(update={"kind": "neurons"})], "magnitude")
    page = render(folder(plan, samples.result(plan)))
    assert 'id="overview"' in page
    assert "kept 5 of 12 units" in own(page)
    assert [trace["customdata"] for trace in drawn(page)["heads-map"]["data"]] == [[0], [0, 0, 0]]


def test_channels_have_no_heads(folder, own, drawn):
    plan = samples.plan()
    page = render(folder(plan, samples.result(plan)))
    assert not any(name.startswith(("heads-", "map-")) for name in drawn(page))
    assert "Which heads stayed" not in own(page)
    assert "0/curve" in drawn(page)


def test_lists_that_do_not_fit_are_left_out():
    odd = [
        layer(0, clusters=(0, 0, 0, 0), position=((0.0, math.nan),) * 4),
        layer(1, clusters=(1,), score=(1.0,)),
    ]
    found = drawn_heads(plan_of(odd))
    group = found.units.decision
    assert (group.clusters, group.score, group.position, group.curve) == ((), (), (), ())
    assert list(heads.charts(found)) == ["map"]
    assert found.units.by == [0, None, None, None, 4, None, None, None]


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
    assert knees(plan) == says
    assert [k.k for k in plan.knees] == [knee]
    assert [k.k for k in plan.model_copy(update={"joint": False}).knees] == [knee, knee]


def test_the_page_stays_small(run, own):
    assert len(own(render(run)).encode()) < 120_000


LOOKER = """
<script>
drawAll(document);
const maps = [...document.querySelectorAll("#pairs .chart")];
document.body.dataset.maps = JSON.stringify(maps.map((map) => map.getAttribute("aria-label")));
const [kept, removed] = byId("heads-map").data;
document.body.dataset.cells = JSON.stringify([kept, removed].map((t) => t.y.map((y, i) => [y, t.x[i]])));
document.body.dataset.hover = removed.hovertext[0];
byId("heads-map").emit("plotly_click", { points: [{ customdata: 2 }] });
document.body.dataset.group = byId("group").selectedIndex;
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
    heads_of = [
        [[f"layer {i}", h] for i, g in enumerate(decided.groups) for h in range(4) if (h in g.kept) == stays]
        for stays in (True, False)
    ]
    assert json.loads(told["cells"]) == heads_of
    shown = pairs.of_run(drawn_heads(decided), decided, run).shown
    maps = json.loads(told["maps"])
    assert len(maps) == 2 * len(shown)
    names = drawn_heads(decided).units.names
    assert maps[0] == f"Mean attention map of {names[shown[0].removed]}, removed"
    assert "salience" in told["hover"]
    assert "represented by layer" in told["hover"]
    assert (told["group"], told["wide"]) == ("2", "false")
    assert f"{names[shown[0].kept]}: kept" in seen.dom
    for chart in ("heads-map", "heads-plane", "heads-curve", "heads-score"):
        after = seen.dom[seen.dom.index(f'<div id="{chart}"') :]
        assert "main-svg" in after[:3000], chart
