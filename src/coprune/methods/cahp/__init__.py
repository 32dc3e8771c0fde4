"""CAHP: head signatures → distances → clusters → the number of heads, all layers at once."""

from coprune.methods.cahp.settings import CAHP, CAHPSettings

__all__ = ["CAHP", "CAHPSettings"]
