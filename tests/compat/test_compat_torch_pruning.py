"""Which Torch-Pruning is known."""

from pathlib import Path

import pytest

from coprune.compat.torch_pruning import SUPPORTED, check_version, score
from coprune.errors import UserError


def test_this_torch_pruning_is_one_whose_internals_are_known(monkeypatch):
    # Fails loudly on a new one: see whether the work-arounds still hold, then move the range and the pin.
    check_version()
    first, beyond = (".".join(map(str, part)) for part in SUPPORTED)
    pin = f'"torch-pruning>={first},<{beyond}"'
    assert pin in (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for other in ("1.5.9", "1.7.0", "2.0"):
        monkeypatch.setattr("coprune.compat.torch_pruning.version", lambda _, other=other: other)
        with pytest.raises(UserError, match=rf"torch-pruning {other} is installed.*pip install"):
            score("magnitude", ())
