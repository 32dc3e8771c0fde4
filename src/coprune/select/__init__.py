"""What a selection method is, and how a budget becomes a number of units a group."""

from coprune.select.budget import (
    Budget,
    check_reachable,
    counts_for_macs,
    uniform_counts,
    units_for_share,
)
from coprune.select.joint import JointChoice, JointRanking
from coprune.select.method import GroupChoice, Method, NoSettings, Ranking, Untouched

__all__ = [
    "Budget",
    "GroupChoice",
    "JointChoice",
    "JointRanking",
    "Method",
    "NoSettings",
    "Ranking",
    "Untouched",
    "check_reachable",
    "counts_for_macs",
    "uniform_counts",
    "units_for_share",
]
