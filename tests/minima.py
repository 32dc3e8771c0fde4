"""The lower bounds of pyproject.toml as pins, on standard output: constraints of ``make test-minima``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
users = [
    *project["dependencies"],
    *(r for e, rs in project["optional-dependencies"].items() if e in ("vision", "text") for r in rs),
]
for requirement in users:
    sys.stdout.write(re.sub(r">=", "==", requirement, count=1) + "\n")
