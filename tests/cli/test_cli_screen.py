"""Full, closed and narrow terminals, readers that go away: no traceback, nothing lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

COPRUNE = f"{sys.executable} -m coprune"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True, text=True, errors="replace", env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["--help", "prune --help", ""])
def test_a_reader_that_goes_away_is_no_error(command):
    ended = shell(f"{COPRUNE} {command} | true")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(("where", "code", "said"), [
    ("> /dev/full", 2, "coprune: standard output: No space left on device\n"),
    (">&-", 0, ""),
    ("2>&-", 0, ""),
    ("<&-", 0, ""),
])  # fmt: skip
def test_standard_streams_that_take_nothing(where, code, said):
    ended = shell(f"{COPRUNE} --version {where}")
    assert (ended.returncode, ended.stderr) == (code, said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_terminals_that_lack_letters(encoding, tmp_path):
    ended = shell(f"cd {tmp_path}; {COPRUNE} inspect 'Ω→[/x]'", PYTHONIOENCODING=encoding)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    code = "from coprune.cli.terminal import say, streams\nwith streams(): say('Ω → [/x] \\x1b[2J')"
    said = shell(f'{sys.executable} -c "{code}"', PYTHONIOENCODING=encoding)
    assert (said.returncode, said.stderr) == (0, "")
    assert "[/x] \\x1b[2J" in said.stdout


def test_alone_it_says_what_there_is(coprune):
    alone, asked = coprune(), coprune("-h")
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == asked.out
    assert "compare" in alone.out
    assert coprune("--version").out.startswith("coprune 0.")
    assert coprune("prune", "-h").code == 0
