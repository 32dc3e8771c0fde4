"""Keep the units that the others predict least. Knows nothing of surgery and training."""

from coprune.methods.complementary.settings import COMPLEMENTARY, ComplementarySettings

__all__ = ["COMPLEMENTARY", "ComplementarySettings"]
