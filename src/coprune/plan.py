"""The decision as data: which units of which group stay, why, and from what it was concluded.

A plan knows nothing of torch. It is JSON with a schema version, it can be read by people, and it can
be applied to any model with the same layers (:mod:`coprune.surgery`).

Shapes: ``U`` units of a group, ``K`` kept units.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal

from pydantic import AliasChoices, Field, model_validator

from coprune.documents import Document, Value
from coprune.files import LARGE, Count
from coprune.skipped import Skipped

ELSEWHERE = "elsewhere"
"""The method of a plan that was derived from a model alone."""


class ReasonCode(str, Enum):
    """What decided how many units of a group stay; a stable word next to the sentence."""

    BUDGET = "budget"
    UNIFORM = "budget_shared_out_uniformly"  # tried, it lost less than the measured allocation
    NOT_VALIDATED = "measured_allocation_not_validated"
    KNEE = "knee"
    SEARCH = "search"
    LEFT_WHOLE = "left_whole"
    ELSEWHERE = "cut_elsewhere"


class Member(Value):
    """A layer's share in a group of units.

    Attributes:
        layer: module name, e.g. ``layer1.0.conv1``.
        role: ``producer`` makes the units (output channels), ``consumer`` reads them (input
            channels), ``carrier`` has one parameter a unit and passes it on (batch norm, depthwise).
        offset: the first of the layer's channels that belongs to unit 0.
        span: how many consecutive channels belong to one unit (a linear layer behind a flattened
            h×w map reads h·w values a unit).
        width: the layer's number of channels, where not all of them belong to this group (behind a
            concatenation); None: they do.
        channels: where units own no consecutive channels in order, all of them, ``span`` a unit, unit
            by unit; ``offset`` is then the lowest. Empty: ``offset`` and ``span`` say it.
        parameter: a bare parameter of the module along the channels (a layer scale), where that and
            not the module itself is meant.

    Of a grouped convolution the *output* channels are listed; its units are whole blocks, so the input
    channels that go are those of the same blocks.
    """

    layer: str
    role: Literal["producer", "consumer", "carrier"]
    offset: Count = 0
    span: Count = Field(1, ge=1)
    width: Count | None = Field(None, ge=1)
    channels: tuple[Count, ...] = ()
    parameter: str | None = None

    @model_validator(mode="after")
    def _channels_fit(self) -> Member:
        if self.channels and (len(self.channels) % self.span or min(self.channels) != self.offset):
            raise ValueError(
                f"member {self.layer}: channels must be {self.span} a unit, from {self.offset} on"
            )
        if len(set(self.channels)) != len(self.channels):
            raise ValueError(f"member {self.layer}: a channel is listed twice")
        return self

    def of_units(self, size: int) -> Sequence[int]:
        """The layer's channels that belong to a group of ``size`` units."""
        return self.channels or range(self.offset, self.offset + size * self.span)


class Knee(Value):
    """How many units a method's own curve keeps.

    Attributes:
        k: number of units.
        rule: how it was read, e.g. ``kneedle, polynomial of degree 2, S=1``.
        fallback: why the rule gave nothing and what was done instead; None when it gave ``k``.
    """

    k: Count
    rule: str
    fallback: str | None = None


class Prediction(Value):
    """A removed unit as the kept ones predict it (least squares on calibration samples).

    Attributes:
        unit: the removed one.
        explained: share of the removed unit's variance that a linear mix of the kept ones
            reproduces, 0 … 1 (R²).
        by: pairs (kept unit, its part of ``explained``), the largest first; parts are R²-shares and
            add up to ``explained`` over all kept units, of which only the foremost are listed.
    """

    unit: Count
    explained: float = Field(ge=0, le=1)
    by: tuple[tuple[Count, float], ...] = ()


class GroupDecision(Value):
    """What happens to one group, and why.

    Attributes:
        name: the group's name: its first producer.
        members: the layers that gain or lose channels together.
        size: number of units ``U``.
        kept: sorted indices of the ``K`` units that stay.
        reason: one sentence.
        curve: pairs (k, value) that led to the choice; empty for methods without one.
        curve_name: what the values are, e.g. ``mean simplified silhouette``.
        knee: of the curve, also when a budget overrode it.
        clusters: cluster of every unit at the chosen k, ``[U]``; empty when nothing was clustered.
        medoids: the central unit of every cluster.
        position: every unit in two dimensions, ``[U]`` pairs, near means redundant; for the page.
        score: the importance of every unit, ``[U]``, for methods that rank.
        predicted: every removed unit by the kept ones, in unit order; ``took_over`` in older plans.
        reason_code: what decided; None in older plans.
        kind: what the units are: ``inner`` or ``coupled`` (channels), ``heads``, ``neurons``; empty in
            a plan that does not say.
    """

    name: str
    members: tuple[Member, ...]
    size: int = Field(ge=1, lt=2**31)
    kept: tuple[int, ...] = Field(min_length=1)
    reason: str
    curve: tuple[tuple[Count, float], ...] = ()
    curve_name: str = ""
    knee: Knee | None = None
    clusters: tuple[Count, ...] = ()
    medoids: tuple[Count, ...] = ()
    position: tuple[tuple[float, float], ...] = ()
    score: tuple[float, ...] = ()
    predicted: tuple[Prediction, ...] = Field((), validation_alias=AliasChoices("predicted", "took_over"))
    kind: str = ""
    reason_code: ReasonCode | None = None

    @model_validator(mode="after")
    def _indices_fit(self) -> GroupDecision:
        if list(self.kept) != sorted(set(self.kept)) or not 0 <= self.kept[0] <= self.kept[-1] < self.size:
            raise ValueError(f"group {self.name}: kept must be sorted, unique and below {self.size}")
        for member in self.members:
            if member.channels and len(member.channels) != self.size * member.span:
                raise ValueError(f"group {self.name}: {member.layer} lists no {self.size} units")
            last = max(member.channels, default=member.offset + self.size * member.span - 1)
            if member.width is not None and last >= member.width:
                raise ValueError(f"group {self.name}: {member.layer} has no channel {last} of {member.width}")
        return self


class Plan(Document):
    """Everything about one decision.

    Attributes:
        method: name of the selection method.
        settings: its settings, defaults included.
        budget: what was asked for, in words, e.g. ``keep_macs=0.5``.
        seed: of clustering, sampling, training.
        model: fingerprint of the weights the plan was made from.
        data: the data's name and fingerprint, and that of the samples the statistics came from.
        groups: one decision a group, in the order of the network.
        skipped: layers that were left alone.
        joint: whether the groups were decided together: curve and knee are of all of them, the same in
            each, and clusters, positions and scores have one meaning in all.
    """

    what = "plan"
    limit = LARGE

    method: str
    settings: dict[str, Any]
    budget: str
    seed: int = Field(ge=0, lt=2**64)
    model: str
    data: dict[str, str]
    groups: tuple[GroupDecision, ...]
    skipped: tuple[Skipped, ...] = ()
    joint: bool = False

    @model_validator(mode="after")
    def _groups_fit(self) -> Plan:
        owners: dict[tuple[str, str, str | None], dict[int, str]] = {}
        for group in self.groups:
            for member in group.members:
                if member.role == "carrier":  # a layer without channels of its own may serve several groups
                    continue
                taken = owners.setdefault((member.layer, member.role, member.parameter), {})
                for channel in member.of_units(group.size):
                    if taken.setdefault(channel, group.name) != group.name:
                        both = f"{taken[channel]} and {group.name}"
                        raise ValueError(f"groups {both} share channel {channel} of {member.layer}")
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"group {next(n for n in names if names.count(n) > 1)} is there twice")
        for key, kind in (("between", dict), ("round_to", int), ("recovery", str)):
            if key in self.settings and not isinstance(self.settings[key], kind):
                raise ValueError(f"settings: {key} is no {kind.__name__}")
        return self

    @property
    def knees(self) -> tuple[Knee, ...]:
        """One knee a group, or the one of all groups together."""
        found = tuple(g.knee for g in self.groups if g.knee)
        return found[:1] if self.joint else found

    @property
    def units(self) -> dict[str, int]:
        """``{"total": …, "kept": …}`` over all groups."""
        return {"total": sum(g.size for g in self.groups), "kept": sum(len(g.kept) for g in self.groups)}
