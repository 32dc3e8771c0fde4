"""What can be removed together? Knows nothing of data and methods."""

from coprune.groups.attention import find_transformer_units
from coprune.groups.columns import channel_indices, columns_of, removed, removed_channels
from coprune.groups.cost import CostModel, Quantity, cost_model
from coprune.groups.find import find_units
from coprune.groups.group import ChannelGroup, Units, unit_axis

__all__ = [
    "ChannelGroup",
    "CostModel",
    "Quantity",
    "Units",
    "channel_indices",
    "columns_of",
    "cost_model",
    "find_transformer_units",
    "find_units",
    "removed",
    "removed_channels",
    "unit_axis",
]
