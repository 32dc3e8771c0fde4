"""Times against what the MACs promise."""

import pytest

from coprune.pipeline.measure import promise_note
from coprune.plan import GroupDecision, Plan
from coprune.result import Latency


def plan(*, kind="inner", round_to=1):
    group = GroupDecision(name="a", members=(), size=4, kept=(0, 1), reason="", kind=kind)
    return Plan(
        schema=1,
        method="magnitude",
        settings={"round_to": round_to},
        budget="",
        seed=0,
        model="",
        data={},
        groups=(group,),
        skipped=(),
    )


def timed(*ratios):
    return [
        Latency(
            engine="torch",
            device="cpu",
            threads=1,
            batch=batch,
            base_ms=ratio,
            pruned_ms=1,
            base_spread_ms=(ratio, ratio),
            pruned_spread_ms=(1, 1),
            ratio=ratio,
            repeats=1,
        )
        for batch, ratio in enumerate(ratios, start=1)
    ]


def test_the_worst_time_is_named_with_what_was_promised():
    said = promise_note(timed(1.9, 1.2, 1.5), share=0.5, plan=plan())
    for part in ("promise 2.00×", "batch 2 comes to 1.20×", "round_to=8"):
        assert part in said


@pytest.mark.parametrize(
    ("ratios", "share", "options"),
    [
        ((1.6, 2.1), 0.5, {}),  # as promised, less a fifth
        ((1.2,), 0.5, {"round_to": 8}),  # asked for already
        ((1.2,), 0.5, {"kind": "heads"}),  # no channels
        ((0.7,), 1.0, {}),  # nothing went
        ((), 0.5, {}),
    ],
)
def test_otherwise_nothing_is_said(ratios, share, options):
    assert promise_note(timed(*ratios), share=share, plan=plan(**options)) is None
