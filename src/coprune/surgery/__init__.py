"""A plan applied to a model. Knows nothing of methods."""

from coprune.surgery.cut import apply_plan, check_fits, cut
from coprune.surgery.mask import masked
from coprune.surgery.verify import sound

__all__ = ["apply_plan", "check_fits", "cut", "masked", "sound"]
