"""Why layers are left alone: a code and what it is about; the sentences stand here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from coprune.documents import Value


class Coded(str, Enum):
    """A stable word, and a sentence for people."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Coded:
        """A member whose value is the word."""
        code = str.__new__(cls, value)
        code._value_, code.sentence = value, sentence
        return code


class SkipCode(Coded):
    """Why a layer was left alone: a stable word, and a sentence about the fields in braces."""

    ASKED = "asked", "left alone as asked (--skip)"
    NOT_ONLY = "not_among_only", "left alone: not among --only"
    OTHER_KIND = "other_kind", "left alone: only {kinds} are removed"
    INSIDE = "inside_skipped", "inside '{layer}', which is left alone"
    FIRST = "first_layer", "first layer, left alone"
    OUTPUT = "model_output", "makes the model's output"
    IDLE = "idle", "nothing that counts depends on it"
    SINGLE = "single_unit", "makes a single {unit}"
    ONE_UNIT = "one_unit", "coupled: all its channels can only go together"
    SUMMED = "summed", "coupled: {layers} are added together or multiplied"
    COUPLED = "coupled", "coupled: its channels pass a grouped layer, a norm over channels or a concatenation"
    OUTSIDE = "outside_blocks", "outside the attention and feed-forward blocks"
    NOT_TRACED = "not_traced", "outside the attention and feed-forward blocks, and {cause}"
    RESIDUAL = "residual_stream", "adds to the residual stream, whose width all layers share"
    EMBEDDING = "embedding", "embedding: makes the residual stream, whose width all layers share"
    MEETS_BLOCKS = (
        "meets_blocks",
        "its channels meet those of attention or feed-forward blocks, which go by heads and neurons",
    )
    FAMILY = "family_cannot_be_cut", "{cause}"
    UNKNOWN_FAMILY = "unknown_family", "{kind} is attention of an unknown family"
    UNKNOWN_HEADS = (
        "heads_not_found",
        "the heads of '{layer}' ({kind}) cannot be found: {cause}; docs/transformers.md says how "
        "to add yours, {skip} leaves it alone",
    )
    NO_PROJECTION = "no_projection", "its {layer} is no linear layer"
    UNEVEN_HEADS = "uneven_heads", "its {layer} and projections do not divide into heads of {size}"
    NOT_RUN = "not_run", "did not run on the example: unused, not called as a layer, or only for other inputs"
    SOME_INPUTS = "runs_for_some_inputs", "'{layer}' runs for some inputs only"
    ALL_SAMPLES = "runs_once_for_all_samples", "'{layer}' runs once for all samples, whatever they are"
    TIED = "tied_weights", "'{layer}' has the weights of '{other}'"
    COMPLEX = "complex_weights", "'{parameter}' is complex"
    NOT_REACHED = "not_reached_by_graph", "not reached by tracing"
    NOT_FOLLOWED = "not_followed_by_graph", "its channels pass {cause}, behind which they cannot be followed"
    UNPAIRED = "channels_not_paired", "it is not known which channels of '{layer}' go with which"
    MISCOUNTED = "channels_miscounted", "'{layer}' has another number of channels"
    MEETS_INPUT = (
        "meets_input",
        "they are added to the model's input, or multiplied with it, whose channels stay",
    )
    READER = "reader_cannot_be_cut", "read by '{layer}', a {kind}, whose channels cannot be cut"
    UNKNOWN_UNITS = "unknown_units", "they pass '{layer}', a {kind}, whose units are not known"
    SEVERAL_AXES = "several_axes", "'{parameter}' has several dimensions and it is not known which is whose"
    NORM_OVER_MAP = "norm_over_map", "'{layer}' normalises over pixels and channels at once"
    UNEVEN_BLOCKS = "uneven_blocks", "'{layer}' reads several channels a group and makes one"
    RANDOM = "random_model", "no cut could be tried: the model is random in evaluation mode"
    CONSTANT = "constant_output", "no cut could be tried: the model's output hardly depends on its input"
    NOT_FINITE = "output_not_finite", "no cut could be tried: the model's output is not finite"
    UNVERIFIED = "unverified", "no cut could be tried: the model does not run on random inputs ({cause})"
    NOT_CUT = "cut_is_refused", "it cannot be cut: {cause}"
    CUT_FAILS = "cut_does_not_run", "the model does not run when it is cut ({cause})"
    OUTPUT_SIZE = "cut_changes_output_size", "the model's output depends on how many there are"
    OTHERS_CHANGE = (
        "cut_changes_other_channels",
        "when it is cut other channels change too: something in between mixes or orders channels "
        "in a way that tracing does not see",
    )
    TOGETHER = "cut_wrong_together", "only together with others: {cause}"


COUPLED = (SkipCode.SUMMED, SkipCode.COUPLED)
"""Of layers that are left alone only because coupled groups are not asked for."""


class Skipped(Value):
    """A layer that was left alone, and why.

    Attributes:
        layer: its name.
        reason: one sentence.
        code: what decided; None in older plans.
    """

    layer: str
    reason: str
    code: SkipCode | None = None


@dataclass(frozen=True)
class Reason:
    """Why a layer is left alone.

    Attributes:
        code: what decided.
        fields: what the sentence names.
    """

    code: SkipCode
    fields: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.code.sentence.format(**self.fields)

    def of(self, layer: str) -> Skipped:
        """A layer that is left alone for this reason."""
        return Skipped(layer=layer, reason=str(self), code=self.code)


def because(code: SkipCode, **fields: object) -> Reason:
    """A reason with the fields that its sentence names."""
    return Reason(code, fields)
