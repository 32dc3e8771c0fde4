"""Names such as ``fashion-mnist`` → batches. Knows nothing of methods."""

from coprune.data.dataset import DataSet, limited, split_source
from coprune.data.names import load_data
from coprune.data.source import ArraySource, LoaderSource, MemorySource, Source
from coprune.data.text import TextSource

__all__ = [
    "ArraySource",
    "DataSet",
    "LoaderSource",
    "MemorySource",
    "Source",
    "TextSource",
    "limited",
    "load_data",
    "split_source",
]
