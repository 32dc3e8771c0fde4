"""All of coprune, imported: for the process that tests fork others from."""

import pkgutil
from importlib import import_module

import coprune

for _module in pkgutil.walk_packages(coprune.__path__, "coprune."):
    if not _module.name.endswith("__main__"):
        import_module(_module.name)
