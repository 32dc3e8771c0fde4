"""How the processes of a run find each other, and how they end when one of them does.

The launcher (``torchrun``, ``accelerate launch``) says in the environment who is who, and ends all
processes when one has ended. Whoever is first to know why says so, once; the others are silent.
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
from typing import TYPE_CHECKING, NoReturn

from coprune.distributed.world import Place, is_first, rank, settle, world
from coprune.errors import UnwrittenError, UserError

if TYPE_CHECKING:
    from torch.distributed import Store

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: the first one measures and writes alone."""

_LOST = "stopped: another process of this run has ended, or the launcher was stopped"

_COURTESY_S = 0.5
"""What is wrong with the command every process finds; the first one is to say it."""

_MISTAKE = "coprune/mistake"

_board: Store | None = None
_undoable: list[Callable[[], None]] = []
_left = ""


@contextmanager
def joined() -> Iterator[None]:
    """Within the context the processes that the launcher started are one run.

    Without a launcher there is one process, and nothing is done. Only the first process prints; see
    :func:`say` for errors. A process group that is there already is used and left.

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
    _hang_up_board()
    _listen()
    if is_first():
        yield
    else:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    # After an error the process ends with its place known; see say().
    settle(Place())
    if made:
        dist.destroy_process_group()


def _launched() -> int:
    """How many processes the launcher started."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def _hang_up_board() -> None:
    """A connection of our own to the launcher's store: the group's may be waiting for something."""
    from torch.distributed import TCPStore

    global _board
    try:
        _board = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
            wait_for_workers=False, timeout=timedelta(seconds=10),
        )  # fmt: skip
    except (KeyError, ValueError, RuntimeError):
        _board = None  # every process will then speak for itself


def say(line: str) -> None:
    """Print a line on standard error, unless another process of the run has said why it ends.

    Args:
        line: of the first process as it is; of another with its rank.
    """
    if world() > 1:
        if not is_first():
            line = f"process {rank()}: {line}"
        try:
            if _board is not None and _board.add("coprune/said", 1) > 1:
                return
        except RuntimeError:
            pass  # the store went with the process that kept it
    print(f"coprune: {line}", file=sys.__stderr__, flush=True)


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
    mistaken = isinstance(error, UserError) and not isinstance(error, UnwrittenError)
    if error is None or mistaken:
        _left = ""
    if undo not in _undoable:
        return
    if is_first() and (mistaken or (error is not None and is_loss(error) and _is_mistake_elsewhere())):
        undo()
    elif mistaken and _board is not None:
        _board.set(_MISTAKE, "")  # for the first process to know when it is ended
    # Not before: the launcher may end this process in the middle, and the listening thread then finishes it.
    _undoable.remove(undo)


def _is_mistake_elsewhere() -> bool:
    try:
        return _board is not None and _board.check([_MISTAKE])
    except RuntimeError:
        return False


def leave(line: str, *, code: int, everybodys: bool = False) -> NoReturn:
    """End this process with a line that says why.

    Args:
        line: cause and way out.
        code: exit status.
        everybodys: whether the other processes most likely found the same.
    """
    if world() == 1:
        print(f"coprune: {line}", file=sys.stderr)
        sys.exit(code)
    if everybodys and not is_first():
        time.sleep(_COURTESY_S)
    say(line)
    # At once: threads of the process group would wait for processes that are no more.
    sys.stdout.flush()
    os._exit(code)


def interrupted() -> str:
    """Why a run ends that the user stops, what it leaves, and the way on."""
    return f"interrupted; {_left}" if _left else "interrupted"


def lost() -> str:
    """The same of one whose other processes cannot be reached, or whose launcher stops it."""
    return f"{_LOST}; {_left}" if _left else _LOST


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process could not be reached."""
    if world() == 1:
        return False
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _listen() -> None:
    """End when the launcher says so, also in the midst of waiting for a process that is no more.

    Python runs signal handlers between two instructions of its own; a thread reads the signal where the
    interpreter leaves its number at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        while True:
            seen = os.read(reader, 64)
            if signal.SIGTERM in seen:
                if is_first() and _is_mistake_elsewhere():
                    for undo in tuple(_undoable):
                        undo()
                leave(lost(), code=128 + signal.SIGTERM, everybodys=True)
            if signal.SIGINT in seen:
                leave(interrupted(), code=128 + signal.SIGINT, everybodys=True)

    threading.Thread(target=wait, name="coprune-launcher", daemon=True).start()
