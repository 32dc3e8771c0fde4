"""The command line in this process, and a tiny trained-looking world on disk for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from digits import write_digits


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def coprune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run ``coprune ARGS`` as a user types it, without the seconds a new process costs."""
    from coprune.cli.main import main

    def run(*args: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["coprune", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Data name of a tiny archive."""
    return f"npz:{write_digits(tmp_path_factory.mktemp('data') / 'digits.npz')}"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, digits: str) -> Path:
    """Run folder of a small network that has learnt the tiny archive."""
    from coprune.pipeline.train import TrainJob, train
    from coprune.training import Recipe

    out = tmp_path_factory.mktemp("base") / "run"
    job = TrainJob(
        model="coprune:resnet20",
        data=digits,
        recipe=Recipe(epochs=3, batch_size=16, lr=0.05),
        arguments={"width": 4},
        threads=1,
    )
    score = train(job, out=out)
    assert score.value > 0.9
    return out


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory, digits: str) -> Path:
    """Run folder of ``python:tiny:resnet8``, trained, for what is run many times; needs ``--trust``."""
    from coprune.pipeline.train import TrainJob, train
    from coprune.training import Recipe

    out = tmp_path_factory.mktemp("small") / "run"
    recipe = Recipe(epochs=4, batch_size=16, lr=0.05)
    score = train(TrainJob(model="python:tiny:resnet8", data=digits, recipe=recipe, threads=1), out=out)
    assert score.value > 0.9
    return out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; see :func:`grown`."""
    place = tmp_path / "small"
    place.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    try:
        subprocess.run(asked, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as cause:
        pytest.skip(f"nothing can be mounted here ({cause})")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def grown(disk: Path, size: str = "50m") -> None:
    """Make room on a small disk."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
