"""One budget for the whole network: how many units each group keeps.

Every group is pruned alone, at a few sizes, with its consumers solved again, and the divergence of
the prediction is measured; between those sizes the selection's own loss gives the curve. The budget
is then spent where it costs least. Knows nothing of surgery and training.
"""

from coprune.allocate.curves import Curved, measured_curves
from coprune.allocate.spend import spend

__all__ = ["Curved", "measured_curves", "spend"]
