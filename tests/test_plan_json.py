"""Plans and results as JSON: they come back as they were, and bad ones are refused in one line."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import tiny
from coprune.errors import UserError
from coprune.plan import GroupDecision, Knee, Member, Plan, Prediction, Skipped
from coprune.result import HANDED_BACK, TAKEN_BACK, Code, Latency, Note, Result, Stage

DECISION = GroupDecision(
    name="conv",
    members=(Member(layer="conv", role="producer"), Member(layer="fc", role="consumer", offset=2, span=4)),
    size=5,
    kept=(0, 2, 4),
    reason="größte Gewichte; „knee“",
    curve=((2, 0.1), (3, 1 / 3), (4, 1e-300)),
    curve_name="mean simplified silhouette",
    knee=Knee(k=3, rule="kneedle, interpolated, S=1", fallback="none found"),
    clusters=(0, 0, 1, 1, 2),
    medoids=(0, 2, 4),
    position=((0.1, -0.2),) * 5,
    score=(0.1, 0.2, 0.30000000000000004, 1e17, 0.0),
)


def plan(**changes):
    values = {
        "schema": 1,
        "method": "cosep",
        "settings": {"grid": 1, "at": "consumer"},
        "budget": "keep_macs=0.5",
        "seed": 3,
        "model": "0123",
        "data": {"name": "npz:x", "fingerprint": "abc"},
        "groups": (DECISION,),
        "skipped": (Skipped(layer="fc", reason="makes the model's output"),),
    }
    return Plan(**{**values, **changes})


RESULT = Result(
    schema=1,
    method="cosep",
    seed=1,
    units={"total": 5, "kept": 3},
    stages=(
        Stage(name="base", value=0.1 + 0.2, macs=10, params=4),
        Stage(name="pruned", value=0.25, macs=5, params=2, calibration=0.3, bytes=99, peak_memory=7),
    ),
    latency=(
        Latency(
            engine="torch",
            device="cpu",
            threads=1,
            batch=1,
            base_ms=2.0,
            pruned_ms=1.0,
            base_spread_ms=(1.9, 2.2),
            pruned_spread_ms=(0.9, 1.1),
            ratio=2.0,
            repeats=50,
        ),
    ),
    seconds={"profile": 1.5},
    versions={"torch": "2"},
    search=({"keep": 0.5, "top1": 0.9},),
    notes=("one",),
)


def test_a_plan_comes_back_exactly(tmp_path):
    plan().save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan()
    # Readable by people and other programs: the field is called "schema".
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["schema"] == 1
    assert content["groups"][0]["kept"] == [0, 2, 4]


def test_a_result_comes_back_exactly(tmp_path):
    RESULT.save(tmp_path / "result.json")
    assert Result.load(tmp_path / "result.json") == RESULT
    assert RESULT.stage("pruned").macs == 5
    assert RESULT.stage("finetuned") is None


def test_notes_have_codes_and_are_their_sentence():
    note = Note(Code.HANDED_BACK, "worse; it is handed back")
    result = RESULT.model_copy(update={"notes": (note,)})
    assert result.model_dump(mode="json")["notes"] == [
        {"code": "handed_back_as_it_came", "text": "worse; it is handed back"}
    ]
    assert f"{note}" == note.text == "worse; it is handed back"
    for again in (copy.deepcopy(note), pickle.loads(pickle.dumps(note))):
        assert (again, again.code) == (note, Code.HANDED_BACK)


def test_a_result_of_schema_1_is_read(tmp_path):
    """As version 0.1 wrote it: sentences for notes, and the codes are told by them where a page needs one."""
    content = RESULT.model_dump(mode="json", by_alias=True)
    content |= {"schema": 1, "notes": ["one", TAKEN_BACK.text, f"worse; {HANDED_BACK}"]}
    del content["judged"]
    for stage in content["stages"]:
        for field in ("higher_is_better", "samples", "interval"):
            del stage[field]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    result = Result.load(path)
    assert [note.code for note in result.notes] == [Code.OTHER, Code.TAKEN_BACK, Code.HANDED_BACK]
    assert (result.judged, result.stages[0].interval) == (None, None)
    result.save(path)
    assert json.loads(path.read_text())["schema"] == 2
    assert Result.load(path) == result


@given(
    kept=st.sets(st.integers(0, 19), min_size=1),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False)),
)
def test_any_plan_comes_back_exactly(tmp_path_factory, kept, values):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    group = tiny.group(20)
    decision = tiny.decision(group, list(kept)).model_copy(
        update={"score": tuple(values), "curve": tuple(enumerate(values))}
    )
    one = plan(groups=(decision,))
    one.save(path)
    assert Plan.load(path) == one


def test_units_are_added_up():
    other = DECISION.model_copy(update={"name": "conv2", "members": ()})
    assert plan(groups=(DECISION, other)).units == {"total": 10, "kept": 6}
    assert plan(groups=()).units == {"total": 0, "kept": 0}


@pytest.mark.parametrize("kept", [(), (2, 1), (1, 1), (-1, 2), (0, 5), (5,), (-1,)])
def test_kept_indices_that_cannot_be_are_refused(kept):
    with pytest.raises(ValidationError, match="kept"):
        GroupDecision(name="g", members=(), size=5, kept=kept, reason="x")


@pytest.mark.parametrize("kept", [[0, 9], [3, 1], []])
def test_a_plan_file_with_bad_indices_is_one_line(tmp_path, kept):
    content = plan().model_dump(by_alias=True, mode="json")
    content["groups"][0]["kept"] = kept
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"plan\.json: not a valid plan: groups\.0") as caught:
        Plan.load(tmp_path / "plan.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Plan, Result])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "truncated"),
        ('{"schema": 1, "method"', "truncated"),
        ("[]", "not a"),
        ("{}", "not a"),
        ('{"schema": 3}', "schema 3, this coprune reads [12];"),
        ('{"schema": 1}', "not a valid"),
        ('{"schema": 1, "surprise": 0}', "not a valid"),
    ],
)
def test_bad_files_are_one_line(tmp_path, kind, content, words):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        kind.load(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Plan, Result])
def test_a_missing_file(tmp_path, kind):
    with pytest.raises(UserError, match="no such"):
        kind.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        kind.load(tmp_path)


def test_values_do_not_change():
    with pytest.raises(ValidationError):
        plan().seed = 4
    with pytest.raises(ValidationError, match="surprise"):
        plan(surprise=1)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_accuracy_is_a_fraction(value):
    with pytest.raises(ValidationError, match="value"):
        Stage(name="base", value=value, macs=1, params=1)


def test_a_plan_from_before_kinds_and_joint_choices_still_loads(tmp_path):
    content = json.loads(plan().model_dump_json(by_alias=True))
    del content["joint"]
    for group in content["groups"]:
        del group["kind"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = Plan.load(tmp_path / "old.json")
    assert old == plan()
    assert (old.joint, old.groups[0].kind, [k.k for k in old.knees]) == (False, "", [3])


def test_a_plan_of_before_predictions_is_read():
    """``took_over`` is what older plans call ``predicted``; a reason without a code is one too."""
    written = plan().model_dump(by_alias=True, mode="json")
    (group,) = written["groups"]
    del group["predicted"], group["reason_code"]
    group["took_over"] = [{"unit": 1, "explained": 0.75, "by": [[0, 0.5], [4, 0.25]]}]
    (read,) = Plan.model_validate(written).groups
    assert read.predicted == (Prediction(unit=1, explained=0.75, by=((0, 0.5), (4, 0.25))),)
    assert read.reason_code is None
    assert "took_over" not in read.model_dump()
    with pytest.raises(ValidationError, match="took_over"):
        Plan.model_validate({**written, "groups": [{**group, "predicted": []}]})
