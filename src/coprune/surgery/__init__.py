"""A plan applied to a model. Knows nothing of methods."""

from coprune.surgery.channels import apply_plan, check_fits, cut
from coprune.surgery.mask import masked

__all__ = ["apply_plan", "check_fits", "cut", "masked"]
