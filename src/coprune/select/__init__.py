"""What a selection method is, and how a budget becomes a number of units a group."""

from coprune.select.budget import (
    Budget,
    OutOfReachError,
    allowed_counts,
    check_reachable,
    counts_for_macs,
    least_counts,
    nearest_allowed,
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
    "OutOfReachError",
    "Ranking",
    "Untouched",
    "allowed_counts",
    "check_reachable",
    "counts_for_macs",
    "least_counts",
    "nearest_allowed",
    "uniform_counts",
    "units_for_share",
]
