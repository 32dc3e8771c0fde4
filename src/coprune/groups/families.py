"""What attention modules and feed-forward blocks look like, a family an entry of ``families.json``.

An entry says where a module keeps its projections and which of its attributes count heads; nothing
else in the project knows a family's names. Entries match by class name, by the package that the class
comes from, and by the layers that must be there. A class whose forward pass was not read may reshape by the
full width, or mix heads: the last entries, of usual layouts, are tried before they are believed.

Layers are named relative to the matched module; ``../`` goes up one name, as in a path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Projection:
    """A layer that makes queries, keys, values, or something else with a share for every head.

    Attributes:
        layer: its relative name.
        part, parts: which of how many consecutive parts of its output is meant; a fused projection holds
            queries, keys and values one after another. Parts are equal; of three, the first is as wide as
            what the output projection reads, so that there may be fewer keys and values than queries.
        each: how many times the head's size one head owns, consecutively; 3 where a fused projection
            holds query, key and value of a head side by side.
        optional: absent in some configurations.
    """

    layer: str
    part: int = 0
    parts: int = 1
    each: int = 1
    optional: bool = False


def _projection(given: object) -> object:
    """A name alone, as most projections are written in the table."""
    return Projection(given) if isinstance(given, str) else given


@dataclass(frozen=True, config=_STRICT)
class Refusal:
    """A part, or a flag, of a module that couples its units.

    Attributes:
        attribute: of the matched module, or with dots of what it holds; harmless when absent, None, false or
            an ``nn.Identity``. Of another module, the name of its class.
        reason: why such a module is left alone.
    """

    attribute: str
    reason: str


@dataclass(frozen=True, config=_STRICT)
class AttentionFamily:
    """How the heads of an attention module are found and cut.

    Attributes:
        name: for messages.
        classes: names of the attention module's class, or patterns (``*Attention``).
        home: the Python package or module that the class comes from.
        projections: what makes queries, keys and values. With grouped queries the keys have fewer
            heads, and a unit is a key/value head with all of its queries.
        out: the output projection, which reads the heads side by side.
        head_size: attribute with the channels of one head; "" where ``scaled`` begins with the attribute
            that counts the heads of the first projection instead.
        scaled: integer attributes in proportion to the number of heads, as far as a module has them;
            ``config.NAME`` is one of the configuration that all layers share, of which a layer that is cut
            gets its own.
        parameters: the module's own parameters with one share a head, along their last axis.
        carriers: modules with one parameter column a head, such as a table of relative positions.
            Attention modules that share one form one group.
        called: the last part of the module's name, where one class serves several purposes.
        unless: what makes heads depend on one another.
        unless_present: class names of modules anywhere in the model that do.
        tried: the forward pass was not read: modules match by the layers they have, and are cut only where a
            trial shows that cutting is masking (:func:`coprune.surgery.sound`).
        note: for those who read the table.
    """

    name: str
    classes: tuple[str, ...]
    projections: tuple[Annotated[Projection, BeforeValidator(_projection)], ...]
    out: str
    head_size: str
    home: str = "transformers."
    scaled: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    carriers: tuple[str, ...] = ()
    called: str | None = None
    unless: tuple[Refusal, ...] = ()
    unless_present: tuple[Refusal, ...] = ()
    tried: bool = False
    note: str = ""


@dataclass(frozen=True, config=_STRICT)
class FeedForwardFamily:
    """How the neurons of a feed-forward block are found.

    Attributes:
        name: for messages.
        classes: names of the class that holds both layers.
        first: the layers that make the neurons; two in gated blocks.
        second: the layer that reads them.
        home: the Python package or module that the class comes from.
        unless: what makes neurons depend on one another.
        parts: in how many equal, consecutive parts of a first layer's output a neuron has a channel;
            2 where one layer makes neurons and gates.
        tried: see :class:`AttentionFamily`.
    """

    name: str
    classes: tuple[str, ...]
    first: tuple[str, ...]
    second: str
    home: str = "transformers."
    unless: tuple[Refusal, ...] = ()
    parts: int = 1
    tried: bool = False


FIXED_WIDTH = (
    "its forward pass reshapes by the model's full width, so that its heads cannot be cut; "
    "the feed-forward neurons can"
)
"""Of attention whose heads are left alone."""


@dataclass(frozen=True, config=_STRICT)
class _Families:
    """The table, ``families.json``."""

    attention: list[AttentionFamily]
    feed_forward: list[FeedForwardFamily]


_TABLE = TypeAdapter(_Families).validate_json(Path(__file__).with_suffix(".json").read_bytes())

ATTENTIONS: list[AttentionFamily] = _TABLE.attention
"""Append an entry for a family of your own; the first that matches counts."""

FEED_FORWARDS: list[FeedForwardFamily] = _TABLE.feed_forward
"""Likewise."""
