"""All of coprune, and what it imports late, imported: for the process that tests fork others from."""

import contextlib
import gc
import pkgutil
from importlib import import_module

import coprune

LATE = (
    "accelerate.utils",
    "kneed",
    "plotly.graph_objects",
    "sklearn.manifold",
    "torch._dynamo",
    "torch.export",
)

for _name in (*LATE, *(m.name for m in pkgutil.walk_packages(coprune.__path__, "coprune."))):
    if not _name.endswith("__main__"):
        with contextlib.suppress(ImportError):  # an extra that is not installed
            import_module(_name)
import_module("few_timings")
# What is here is no garbage: the forks need not search it, which would copy it for each of them too.
gc.collect()
gc.freeze()
