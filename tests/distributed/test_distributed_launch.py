"""What one process of several leaves when another ends with an error, by elastic's own error files."""

from __future__ import annotations

import signal

import pytest
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from coprune.distributed import launch
from coprune.distributed.world import Place, here, settle
from coprune.errors import UnwrittenError, UserError


class PartialError(UserError):
    """A part's own kind of mistake."""


def as_process(monkeypatch, tmp_path, rank):
    """Process ``rank`` of two under elastic, which gives it a file for why it ends."""
    (tmp_path / str(rank)).mkdir(exist_ok=True)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank) / "error.json"))
    settle(Place(rank, 2))


@pytest.fixture
def two(monkeypatch):
    before, end = here(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(launch, "_COURTESY_S", 0)
    monkeypatch.setattr(launch, "_left", "")
    yield
    settle(before)
    signal.signal(signal.SIGTERM, end)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("cause", "undone"),
    [
        (UserError("no such file"), True),
        (PartialError("no such layer"), True),
        (UnwrittenError(OSError(28, "no room"), "disk"), False),
        (MemoryError("no memory"), False),
        (None, False),
    ],
    ids=["a mistake", "a kind of mistake", "a full disk", "a crash", "killed"],
)
def test_only_a_mistake_elsewhere_undoes_a_run(monkeypatch, tmp_path, cause, undone):
    as_process(monkeypatch, tmp_path, 1)
    if isinstance(cause, UserError):
        with pytest.raises(SystemExit):
            launch.leave("ended", code=2, cause=cause)
    elif cause is not None:
        get_error_handler().record_exception(cause)  # what elastic does with a crash
        assert (tmp_path / "1" / "error.json").exists()
    as_process(monkeypatch, tmp_path, 0)
    did = []

    def undo():
        did.append("undone")

    launch.begin_undoable(undo, left="kept")
    launch.end_undoable(undo, ConnectionError("the other process is gone"))
    assert did == ["undone"] * undone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "the launcher's"])
def test_a_signal_does_not_break_off_the_undoing(number):
    """Torch elastic ends the others some milliseconds after it has seen that one has ended."""
    handler, did = signal.getsignal(number), []

    def undo():
        did.append("begun")
        signal.raise_signal(number)
        did.append("undone")

    launch.begin_undoable(undo, left="kept")
    launch.end_undoable(undo, UserError("no such file"))
    assert did == ["begun", "undone"]
    assert signal.getsignal(number) is handler
