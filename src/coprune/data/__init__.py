"""Names such as ``fashion-mnist`` → batches. Knows nothing of methods."""

from coprune.data.dataset import DataSet, limited, split_source
from coprune.data.names import load_data
from coprune.data.source import ArraySource, LoaderSource, Source

__all__ = ["ArraySource", "DataSet", "LoaderSource", "Source", "limited", "load_data", "split_source"]
