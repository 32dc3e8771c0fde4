"""How the processes of a run find each other, and how they end when one of them does.

The launcher (``torchrun``, ``accelerate launch``) says in the environment who is who, and ends all
processes when one has ended. Why one did is recorded in the error file that torch elastic gives it; whoever
is first to know says so, once, and the others are silent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from coprune.distributed.world import Place, is_first, rank, settle, world
from coprune.errors import UnwrittenError, UserError

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: the first one measures and writes alone."""

_LOST = "stopped: another process of this run has ended, or the launcher was stopped"

_COURTESY_S = 0.5
"""What is wrong with the command every process finds; the first one is to say it."""

_STOPPING = (signal.SIGINT, signal.SIGTERM)

_undoable: list[Callable[[], None]] = []
_left = ""


@contextmanager
def joined() -> Iterator[None]:
    """Within the context the processes that the launcher started are one run.

    Without a launcher there is one process, and nothing is done. Only the first process prints; see
    :func:`leave` for errors. A process group that is there already is used and left.

    Raises:
        UserError: the launcher's variables are incomplete, or the others cannot be reached.
    """
    global _left
    _left = ""
    if _launched() <= 1 or world() > 1:
        yield
        return
    import torch
    import torch.distributed as dist

    made = not dist.is_initialized()
    if made:
        # Statistics travel over gloo; NCCL is for the gradients of models on GPUs.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(backend, timeout=PATIENCE)
        except (ValueError, RuntimeError) as cause:
            raise UserError(
                f"the processes of this run cannot join ({str(cause).splitlines()[0]}); "
                "start them with torchrun or accelerate launch"
            ) from cause
    settle(Place(dist.get_rank(), dist.get_world_size()))
    if is_first():
        yield
    else:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    # After an error the process ends with its place known; see leave().
    settle(Place())
    if made:
        dist.destroy_process_group()


def _launched() -> int:
    """How many processes the launcher started."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def _logs() -> Path | None:
    """Where torch elastic keeps a folder for each process of this machine; None of another launcher."""
    own = os.environ.get("TORCHELASTIC_ERROR_FILE")
    return Path(own).parent.parent if own else None


def _is_mistake_elsewhere() -> bool:
    """Whether another process has recorded that the user must change something."""
    logs = _logs()
    # Elastic records crashes in such files, too: what those leave can be gone on with.
    files = () if logs is None else logs.glob("*/error.json")
    return any(f'"{UserError.__name__}: ' in file.read_text() for file in files)


def _is_first_to_speak() -> bool:
    logs = _logs()
    try:
        if logs is not None:
            (logs / "said").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass  # then every process speaks for itself
    return True


def begin_undoable(undo: Callable[[], None], *, left: str) -> None:
    """From here on a user's mistake, found by any process, undoes something; in the first process.

    Args:
        undo: does so.
        left: what any other end leaves, and the way on, in words.
    """
    global _left
    _left = left
    _undoable.append(undo)


def keep_undoable(undo: Callable[[], None]) -> None:
    """From here on it stays, whatever happens: something in it is worth keeping."""
    if undo in _undoable:
        _undoable.remove(undo)


def end_undoable(undo: Callable[[], None], error: BaseException | None) -> None:
    """It is done, or ended with an error: a mistake undoes it, any other end leaves what can be resumed."""
    global _left
    mistaken = is_mistake(error)
    if error is None or mistaken:
        _left = ""
    if undo in _undoable:
        with _to_the_end():
            _undoable.remove(undo)
            if is_first() and (mistaken or (error is not None and world() > 1 and _is_mistake_elsewhere())):
                undo()


@contextmanager
def _to_the_end() -> Iterator[None]:
    """Signals that stop a run, such as the launcher's, change nothing here: the process is ending already."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, signal.SIG_IGN) for n in _STOPPING if signal.getsignal(n) is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_mistake(error: BaseException | None) -> bool:
    """Whether the user must change something before it can go on."""
    return isinstance(error, UserError) and not isinstance(error, UnwrittenError)


def leave(line: str, *, code: int, cause: BaseException | None = None) -> NoReturn:
    """End this process with a line on standard error that says why.

    Args:
        line: cause and way out; of a process that is not the first one its rank is put before it.
        code: exit status.
        cause: a mistake of the user's; the other processes most likely find the same.
    """
    if world() == 1:
        print(f"coprune: {line}", file=sys.stderr)
        sys.exit(code)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, while the line is being said
    if cause is not None and is_mistake(cause):
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(UserError(str(cause)))
    if not is_first():
        time.sleep(_COURTESY_S)
        line = f"process {rank()}: {line}"
    if _is_first_to_speak():
        print(f"coprune: {line}", file=sys.__stderr__, flush=True)
    sys.exit(code)


def interrupted(number: int = signal.SIGINT) -> str:
    """Why a run ends that a signal stops, what it leaves, and the way on.

    Args:
        number: of the signal; of several processes SIGTERM is the launcher's, or says that another process
            cannot be reached.
    """
    why = _LOST if world() > 1 and number == signal.SIGTERM else "interrupted"
    return f"{why}; {_left}" if _left else why


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process could not be reached."""
    if world() == 1:
        return False
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)
