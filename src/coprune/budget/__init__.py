"""From a budget to the number of units of every group: counts, allocation, and search with a guarantee."""
