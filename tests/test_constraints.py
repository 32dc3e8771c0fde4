"""The repository's own environment can be made with every Python that the package allows."""

from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

LINES = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]
OLDEST = "3.10"


@pytest.mark.parametrize("pin", PINS, ids=lambda pin: pin.name)
def test_a_version_is_asked_for_only_where_python_is_new_enough_for_it(pin):
    # Once a bug: five pins had dropped the oldest Python, and no environment could be made with it.
    if pin.marker is not None and not pin.marker.evaluate({"python_version": OLDEST}):
        return
    try:
        found = metadata(pin.name)
    except PackageNotFoundError:
        pytest.skip("of an extra that is not installed")
    assert SpecifierSet(found["Requires-Python"] or "").contains(OLDEST)
