"""What a selection method is, and how a budget becomes a number of units a group."""

from coprune.select.budget import Budget, check_reachable, counts_for_macs, uniform_counts
from coprune.select.method import GroupChoice, Method, NoSettings, Ranking, Untouched

__all__ = [
    "Budget",
    "GroupChoice",
    "Method",
    "NoSettings",
    "Ranking",
    "Untouched",
    "check_reachable",
    "counts_for_macs",
    "uniform_counts",
]
