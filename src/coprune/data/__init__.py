"""Names such as ``fashion-mnist`` → batches. Knows nothing of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coprune.lazy import exports

if TYPE_CHECKING:
    from coprune.data.arrays import ArraySource
    from coprune.data.dataset import DataSet, in_memory, limited, split_source
    from coprune.data.load import load_data
    from coprune.data.loader import LoaderSource
    from coprune.data.reads import Reads
    from coprune.data.source import MemorySource, Source
    from coprune.data.subsample import spread, spread_batches
    from coprune.data.text import TextSource
    from coprune.data.trees import TreeSource

__getattr__ = exports(__name__)

__all__ = [
    "ArraySource",
    "DataSet",
    "LoaderSource",
    "MemorySource",
    "Reads",
    "Source",
    "TextSource",
    "TreeSource",
    "in_memory",
    "limited",
    "load_data",
    "split_source",
    "spread",
    "spread_batches",
]
