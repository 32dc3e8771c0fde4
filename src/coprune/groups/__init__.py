"""What can be removed together? Knows nothing of data and methods."""

from coprune.groups.attention import find_transformer_units
from coprune.groups.columns import channel_indices, columns_of, in_blocks, removed, removed_channels
from coprune.groups.find import find_units
from coprune.groups.group import ChannelGroup, Units, unit_axis

__all__ = [
    "ChannelGroup",
    "Units",
    "channel_indices",
    "columns_of",
    "find_transformer_units",
    "find_units",
    "in_blocks",
    "removed",
    "removed_channels",
    "unit_axis",
]
