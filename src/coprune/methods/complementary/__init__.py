"""Keep the units whose part the others could not take over. Knows nothing of surgery and training."""

from coprune.methods.complementary.method import COMPLEMENTARY, ComplementaryChoice, ComplementarySettings

__all__ = ["COMPLEMENTARY", "ComplementaryChoice", "ComplementarySettings"]
