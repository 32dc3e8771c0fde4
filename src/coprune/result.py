"""``result.json``: what a run did and what it measured. A stable contract, schema 2; 1 is read too.

Knows nothing of torch. ``value`` is always a fraction in [0, 1] on the held-out split; calibration
figures, which decisions were based on, are kept apart.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, field_validator, model_validator

from coprune.documents import Document, Value
from coprune.files import Count, Figure

SCHEMA: Literal[2] = 2
OLDER = (1,)
"""Schemas that are read and brought up to this one."""

StageName = Literal["base", "pruned", "recovered", "finetuned"]


def shown_value(value: float, unit: str) -> str:
    """A metric's value as it is read: a share in per cent, else four significant figures."""
    return f"{value:.2%}" if unit == "%" else _four_figures(value)


LARGE = 1e4
"""A value from which on none of its decimals is shown."""


def _four_figures(value: float) -> str:
    text = f"{value:.4g}"
    return f"{float(text):,.0f}" if LARGE <= abs(value) < 1e9 else text


def loss_places(about: float) -> int:
    """Decimals of a value with four significant figures: 53.6 has two, 0.93 four."""
    return 4 - math.ceil(math.log10(abs(about) or 1))


def shown_loss(loss: float, unit: str, *, about: float = 1.0) -> str:
    """A loss as it is read: points of a share, else to the last decimal that a value is shown with.

    Args:
        loss: in the unit of ``max_drop``.
        unit: of the metric.
        about: a value of the metric.
    """
    if unit == "%":
        return f"{loss:.2f}".replace("-0.00", "0.00")
    return _four_figures(round(loss, loss_places(about)) + 0.0)


def metric_label(name: str) -> str:
    """A metric's name as it is read."""
    return "top-1" if name == "top1" else name.replace("_", " ")


class Stage(Value):
    """The model after one step.

    Attributes:
        name: ``base``, ``pruned`` (right after surgery), ``recovered`` (without labels) or
            ``finetuned``.
        metric: what ``value`` is: ``top1``, ``miou``, ``perplexity``, …
        unit: ``%``, a share that is shown in per cent and whose losses are in points; empty, its own.
        value: held-out; a share is a fraction.
        samples: held-out ones that gave the value.
        interval: 95 % interval of the value on all samples of the kind; Wilson's of top-1.
        macs: multiply-adds of one sample.
        params: number of parameters.
        calibration: the same on the calibration samples that decisions may use, when it was measured.
        bytes: size of the weights on disk.
        peak_memory: bytes of tensors alive at the worst moment of one forward pass of one sample.
    """

    name: StageName
    metric: str = "top1"
    higher_is_better: bool = True
    unit: str = "%"
    value: Figure
    samples: Count | None = None
    interval: tuple[Figure, Figure] | None = None
    macs: Count
    params: Count
    calibration: Figure | None = None
    bytes: Count | None = None
    peak_memory: Count | None = None

    @model_validator(mode="after")
    def _is_a_share(self) -> Stage:
        if self.unit == "%" and not 0 <= self.value <= 1:
            raise ValueError(f"value: {self.metric} is a share in [0, 1], not {self.value:g}")
        return self


NEAR = 0.5
"""Widest interval of a ratio that is worth stating, as a share of the ratio: a quarter each way."""

SWING = 3
"""A time whose 90th percentile is more than so many 10th ones swings: the machine did other things."""


class Latency(Value):
    """Time of one forward pass, base and pruned measured in turn on the same inputs.

    Attributes:
        base_ms, pruned_ms: medians in milliseconds.
        base_spread_ms, pruned_spread_ms: 10th and 90th percentile.
        ratio: median of base/pruned taken pair by pair (2.0: twice as fast).
        ratio_interval: 95 % interval of that median; None in results of schema 1.
    """

    engine: str
    device: str
    threads: Count
    batch: Count
    base_ms: Figure
    pruned_ms: Figure
    base_spread_ms: tuple[Figure, Figure]
    pruned_spread_ms: tuple[Figure, Figure]
    ratio: Figure
    ratio_interval: tuple[Figure, Figure] | None = None
    repeats: Count

    @property
    def conclusive(self) -> bool:
        """Whether the ratio says something: its interval is narrow, and neither time swings widely."""
        low, high = self.ratio_interval or (self.ratio, self.ratio)
        spreads = (self.base_spread_ms, self.pruned_spread_ms)
        steady = all(slow <= SWING * fast for fast, slow in spreads)
        return steady and high - low <= NEAR * self.ratio

    @property
    def differs(self) -> bool:
        """Whether one of the two is surely faster."""
        low, high = self.ratio_interval or (self.ratio, self.ratio)
        return self.conclusive and not low <= 1 <= high


class Code(str, Enum):
    """What a note is about; a stable word next to its text."""

    MORE_LOST = "more_lost_than_allowed"
    JUDGED_ON_TRAINING = "judged_on_training_samples"
    DATA = "data"
    UNTRAINED = "untrained"
    NO_BETTER_THAN_CHANCE = "base_no_better_than_chance"
    ALIKE_SAMPLES = "calibration_samples_alike"
    FEW_SAMPLES = "few_calibration_samples"
    SEARCH = "search"
    BUDGET = "budget_missed"
    WIDENED = "more_kinds_of_units"
    NOTHING_REMOVED = "nothing_removed"
    UNCHANGED = "recovery_changed_nothing"
    TAKEN_BACK = "reconstruction_taken_back"
    HANDED_BACK = "handed_back_as_it_came"
    FINETUNING_UNDONE = "finetuning_undone"
    FORMAT = "what_opens_the_run_folder"
    OTHER = "other"


class Note(str):
    """A sentence that a user should read; ``code`` says what it is about, for programs."""

    code: Code

    def __new__(cls, code: Code, text: str) -> Note:
        made = super().__new__(cls, text)
        made.code = code
        return made

    def __getnewargs__(self) -> tuple[Code, str]:  # type: ignore[override]
        return self.code, str(self)

    @property
    def text(self) -> str:
        """The sentence."""
        return str.__str__(self)


TAKEN_BACK = Note(
    Code.TAKEN_BACK,
    "reconstruction came no nearer to the unpruned model on samples that it did not learn from; "
    "the weights of least squares stayed",
)
"""A note of a run whose model is one of least squares after all."""


HANDED_BACK = "the model is handed back as it came"
"""How the note of a run ends in which recovery would have done harm."""


def _read_note(given: Any) -> Note:
    """A note from JSON; in schema 1 it is a sentence without a code."""
    if isinstance(given, Note):
        return given
    if isinstance(given, str):
        known = {TAKEN_BACK: Code.TAKEN_BACK, HANDED_BACK: Code.HANDED_BACK}
        return Note(next((code for end, code in known.items() if given.endswith(end)), Code.OTHER), given)
    if isinstance(given, dict) and given.keys() == {"code", "text"} and isinstance(given["text"], str):
        return Note(Code(given["code"]), given["text"])
    raise ValueError("a note is {code, text}")


Noted = Annotated[
    Note,
    PlainValidator(_read_note),
    PlainSerializer(lambda note: {"code": note.code.value, "text": note.text}),
]
"""A note in a document: ``{"code", "text"}``."""


JudgedOn = Literal["validation", "calibration samples", "training samples", "training samples set aside"]


class Judged(Value):
    """What samples said that a decision was based on.

    Attributes:
        decision: ``max_drop``, ``knee``, ``fine-tuning`` or ``recovery``.
        on: which samples judged.
        samples: how many.
        allowed: what might be lost, in points of a share, else in the metric's unit; None where no limit was
            asked for.
        found: what the model that was taken lost there against the unpruned one (for ``fine-tuning``
            and ``recovery``: against the model before that).
        interval: 80 % interval of the true loss; with validation samples, 86 % interval of the loss that the
            held-out samples will show.
    """

    decision: Literal["max_drop", "knee", "fine-tuning", "recovery"]
    on: JudgedOn
    samples: Count
    allowed: Figure | None = None
    found: Figure
    interval: tuple[Figure, Figure] | None = None
    metric: str = "top1"
    higher_is_better: bool = True
    unit: str = "%"


class Result(Document):
    """All figures of one run.

    Attributes:
        judged: what samples decided, where they decided something.
        calibration: how many samples statistics, recovery and perhaps judging had.
        processes: how many did it together.
    """

    what = "result"
    older = OLDER

    schema_version: Literal[2] = Field(SCHEMA, alias="schema")
    method: str
    seed: int
    units: dict[str, Count]
    stages: tuple[Stage, ...]
    judged: Judged | None = None
    calibration: Count | None = None
    latency: tuple[Latency, ...]
    seconds: dict[str, Figure]
    versions: dict[str, str]
    processes: Count = 1
    search: tuple[dict[str, Any], ...] = ()
    notes: tuple[Noted, ...] = ()

    @field_validator("schema_version", mode="before")
    @classmethod
    def _brought_up(cls, schema: Any) -> Any:
        """What schema 1 lacks has a default, and notes without a code are read as such."""
        return SCHEMA if schema in OLDER else schema

    def stage(self, name: str) -> Stage | None:
        """The stage of that name, or None."""
        return next((s for s in self.stages if s.name == name), None)
