"""Why layers are left alone: a code and what it is about; the sentences stand here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coprune.plan import SkipCode, Skipped

_UNVERIFIED = "no cut could be tried: "

SENTENCES: Mapping[SkipCode, str] = {
    SkipCode.ASKED: "left alone as asked (--skip)",
    SkipCode.NOT_ONLY: "left alone: not among --only",
    SkipCode.OTHER_KIND: "left alone: only {kinds} are removed",
    SkipCode.INSIDE: "inside '{layer}', which is left alone",
    SkipCode.FIRST: "first layer, left alone",
    SkipCode.OUTPUT: "makes the model's output",
    SkipCode.SINGLE: "makes a single {unit}",
    SkipCode.ONE_UNIT: "coupled: all its channels can only go together",
    SkipCode.SUMMED: "coupled: {layers} are added together or multiplied",
    SkipCode.COUPLED: "coupled: its channels pass a grouped layer, a norm over channels or a concatenation",
    SkipCode.OUTSIDE: "outside the attention and feed-forward blocks",
    SkipCode.NOT_TRACED: "outside the attention and feed-forward blocks, and {cause}",
    SkipCode.RESIDUAL: "adds to the residual stream, whose width all layers share",
    SkipCode.EMBEDDING: "embedding: makes the residual stream, whose width all layers share",
    SkipCode.MEETS_BLOCKS: "its channels meet those of attention or feed-forward blocks, which go by heads "
    "and neurons",
    SkipCode.FAMILY: "{cause}",
    SkipCode.UNKNOWN_FAMILY: "{kind} is attention of an unknown family",
    SkipCode.UNKNOWN_HEADS: "the heads of '{layer}' ({kind}) cannot be found: {cause}; docs/transformers.md "
    "says how to add yours, --skip {layer} leaves it alone",
    SkipCode.NO_PROJECTION: "its {layer} is no linear layer",
    SkipCode.UNEVEN_HEADS: "its {layer} and projections do not divide into heads of {size}",
    SkipCode.NOT_RUN: "did not run on the example: not used, not called as a layer, or only for other inputs",
    SkipCode.SOME_INPUTS: "'{layer}' runs for some inputs only",
    SkipCode.ALL_SAMPLES: "'{layer}' runs once for all samples, whatever they are",
    SkipCode.TIED: "'{layer}' has the weights of '{other}'",
    SkipCode.COMPLEX: "'{parameter}' is complex",
    SkipCode.NOT_REACHED: "not reached by the dependency graph",
    SkipCode.NOT_FOLLOWED: "coupled: Torch-Pruning cannot follow its channels ({cause})",
    SkipCode.UNPAIRED: "Torch-Pruning does not say which channels of '{layer}' go with which",
    SkipCode.MISCOUNTED: "Torch-Pruning counts '{layer}' wrongly",
    SkipCode.READER: "read by '{layer}', a {kind}, whose channels cannot be cut",
    SkipCode.UNKNOWN_UNITS: "they pass '{layer}', a {kind}, whose units are not known",
    SkipCode.SEVERAL_AXES: "'{parameter}' has several dimensions and it is not known which is whose",
    SkipCode.NORM_OVER_MAP: "'{layer}' normalises over pixels and channels at once",
    SkipCode.UNEVEN_BLOCKS: "'{layer}' reads several channels a group and makes one",
    SkipCode.RANDOM: f"{_UNVERIFIED}the model is random in evaluation mode",
    SkipCode.CONSTANT: f"{_UNVERIFIED}the model's output hardly depends on its input",
    SkipCode.NOT_FINITE: f"{_UNVERIFIED}the model's output is not finite",
    SkipCode.UNVERIFIED: f"{_UNVERIFIED}the model does not run on random inputs ({{cause}})",
    SkipCode.NOT_CUT: "it cannot be cut: {cause}",
    SkipCode.CUT_FAILS: "the model does not run when it is cut ({cause})",
    SkipCode.OUTPUT_SIZE: "the model's output depends on how many there are",
    SkipCode.OTHERS_CHANGE: "when it is cut other channels change too: something in between mixes or orders "
    "channels in a way that the dependency graph does not see",
    SkipCode.TOGETHER: "only together with others: {cause}",
}
"""Code → sentence, about the fields in braces."""

COUPLED = (SkipCode.SUMMED, SkipCode.COUPLED)
"""Of layers that are left alone only because coupled groups are not asked for."""


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
        return SENTENCES[self.code].format(**self.fields)

    def of(self, layer: str) -> Skipped:
        """A layer that is left alone for this reason."""
        return Skipped(layer=layer, reason=str(self), code=self.code)


def because(code: SkipCode, **fields: object) -> Reason:
    """A reason with the fields that its sentence names."""
    return Reason(code, fields)
