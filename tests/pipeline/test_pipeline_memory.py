"""Peak memory: networks of real size are pruned below a limit that the system enforces."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("memory_limit.py")


def pruned(samples, gigabytes, recovery="least-squares"):
    words = ["mnasnet0_5", samples, gigabytes, recovery]
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture(autouse=True)
def _on_linux_with_torchvision():
    pytest.importorskip("torchvision")
    if not sys.platform.startswith("linux"):
        pytest.skip("limits of memory are Linux's")


@pytest.mark.slow
def test_500_photographs_in_4_gigabytes():
    ended = pruned(500, 4)
    assert (ended.returncode, ended.stdout.strip()) == (0, "0.700"), ended.stderr


def test_a_few_in_2_gigabytes():
    ended = pruned(48, 2)
    assert ended.returncode == 0, ended.stderr
    assert 0.69 < float(ended.stdout) <= 0.7


def test_the_limit_is_one():
    ended = pruned(48, 0.2)
    assert ended.returncode != 0
    assert re.search("memory", ended.stderr)
