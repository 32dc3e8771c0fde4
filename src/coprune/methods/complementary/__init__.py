"""Keep the units whose part the others could not take over. Knows nothing of surgery and training."""

from coprune.methods.complementary.settings import COMPLEMENTARY, ComplementarySettings

__all__ = ["COMPLEMENTARY", "ComplementarySettings"]
