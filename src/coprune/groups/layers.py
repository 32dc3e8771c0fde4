"""Moved: :mod:`coprune.layers`."""

from coprune.layers import *  # noqa: F403
