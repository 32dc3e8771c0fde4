"""The run folder: who may write into it, what was asked, and how an interrupted run finds its way.

``run/job.json`` says what was asked. While a run is unfinished its intermediate files live in
``run/work/``; that folder goes when the run is whole. A run that overwrites another one is made beside it
and takes its place once it is whole (:mod:`coprune.folders`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from coprune.distributed.launch import begin_undoable, end_undoable, keep_undoable
from coprune.distributed.world import is_first, world
from coprune.documents import Document
from coprune.errors import UnwrittenError, UserError, shown
from coprune.files import LARGE, append_line, make_folder, read_json, write_json, writing
from coprune.folders import check_idle, lock, mend, newcomer, real, replace, unlock
from coprune.pipeline.inputs import check_apart

T = TypeVar("T")
D = TypeVar("D", bound=BaseModel)

COMMANDS = ("train", "prune", "recover", "compare")

_TORN_JOB = ".job.json.*.tmp"


class _Kept(Document, Generic[D]):
    what = "state"
    limit = LARGE

    value: D


@dataclass
class RunFolder:
    """A folder that one run owns, used as a context; of several processes the first one writes into it.

    When a run that started here ends with a :class:`~coprune.errors.UserError`, nothing of it stays:
    it could not be resumed, since something about it must change; but see :meth:`keep`. Any other end
    (a kill, an interrupt, a full disk) leaves what ``--resume`` needs.

    Attributes:
        path: the folder that is written.
        out: its name to the user.
        replaces: whether it takes the place of an earlier run when it is closed; until then it lies beside.
        fresh: whether this run made it, rather than taking it up again.
        finished: whether the run that owns it was whole already.
        made: folders that were missing, innermost first.
        locks: what keeps others out, in the first process.
    """

    path: Path
    out: Path
    replaces: bool = False
    fresh: bool = False
    finished: bool = False
    made: list[Path] = field(default_factory=list)
    locks: list[int | None] = field(default_factory=list)

    def __enter__(self) -> RunFolder:
        begin_undoable(self._drop, left=self.left)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        end_undoable(self._drop, error)
        self._unlock()
        if isinstance(error, UnwrittenError):
            raise UnwrittenError(error.what, error.first, f"and go on: {self.left}") from error

    @property
    def left(self) -> str:
        """What an unfinished run leaves, and the way on, in words."""
        if self.replaces:
            return f"{self.out} is as it was, the same command with --resume continues the new run"
        return f"{self.out} keeps what is done, the same command with --resume continues"

    def keep(self) -> None:
        """From here on it stays, whatever the run ends with: it holds what has taken long to find."""
        keep_undoable(self._drop)

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            if self.fresh:
                _clear(self.path)
            for folder in self.made:
                folder.rmdir()

    def _unlock(self) -> None:
        while self.locks and is_first():
            unlock(self.locks.pop())

    @property
    def work(self) -> Path:
        """Where unfinished state lives."""
        return self.path / "work"

    def log(self, event: str, **values: Any) -> None:
        """Append one line to ``log.jsonl``."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
        append_line(self.path / "log.jsonl", line)

    def find(self, name: str, kind: type[D]) -> D | None:
        """What :meth:`store` has kept under a name, before a run was broken off.

        Raises:
            UserError: it is damaged.
        """
        file = self.work / f"{name}.json"

        def read() -> D | None:
            if not file.is_file():
                return None
            return _Kept[kind].load(file).value  # type: ignore[valid-type]

        return _on_first(read)

    def store(self, name: str, value: BaseModel) -> None:
        """Keep what an interrupted run need not find again."""
        write_json(self.work / f"{name}.json", {"schema": 1, "value": value.model_dump(mode="json")})

    def close(self) -> None:
        """The run is whole: remove the unfinished state, and take the place of an earlier run."""
        if is_first():
            with writing(self.path):
                # At once: a kill amid removing it would leave a half of what is not to be taken up again.
                going = self.path / ".work.tmp"
                self.work.rename(going)
                shutil.rmtree(going, ignore_errors=True)
                if self.replaces:
                    replace(real(self.out))
        self._unlock()


def check_out(out: Path, job: Any, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before anything is loaded, most of what :func:`claim` would, and outputs that are inputs.

    Args:
        out: the folder.
        job: see :func:`coprune.pipeline.inputs.check_apart`.
        resume, overwrite: as for :func:`claim`.

    Raises:
        UserError: as for :func:`claim`; ``out`` is, or holds, something that the job reads.
    """

    def check() -> None:
        with writing(out):
            check_idle(out)
            place = real(out)
            goes_on = resume and (place / "job.json").is_file() and not newcomer(place).exists()
            if _occupied(place) and not goes_on:
                check_apart(out, job)
            _destination(out, None, resume=resume, overwrite=overwrite)

    _on_first(check)


def _on_first(act: Callable[[], T]) -> T:
    if world() == 1:  # torch is not needed, and need not be loaded to refuse a folder
        return act()
    from coprune.distributed.collectives import on_first

    return on_first(act)


def claim(out: Path, *, job: Mapping[str, Any], resume: bool, overwrite: bool) -> RunFolder:
    """Take a folder for a run, or take it up again. The first of several processes does it for all.

    Args:
        out: the folder.
        job: everything that was asked for (JSON values). A resumed run must ask for the same.
        resume: continue what is there; starts anew when nothing is.
        overwrite: replace what is there, once the new run is whole.

    Raises:
        UserError: another process is writing there; something is there and neither ``resume`` nor
            ``overwrite`` was given; it is no folder, no run, or was started with other options; it cannot be
            written.
    """

    def take() -> RunFolder:
        with writing(out):
            return _claim(out, json.loads(json.dumps(dict(job))), resume=resume, overwrite=overwrite)

    return _on_first(take)


def _claim(out: Path, asked: Any, *, resume: bool, overwrite: bool) -> RunFolder:
    mend(out)
    place = real(out)
    new = newcomer(place)
    run = RunFolder(out, out)
    try:
        # The folder that all know comes first, so that one of two processes gets both.
        for folder in (place, new):
            if folder.is_dir():
                run.locks.append(lock(folder, named=out))
        path, again = _destination(out, asked, resume=resume, overwrite=overwrite)
        run.replaces = path == new
        if run.replaces or out.is_symlink():
            run.path = path  # else the name that the user knows
        if again:
            _take_up(run)
            return run
        if not run.replaces and new.is_dir():
            _clear(new)
            new.rmdir()
        run.made += [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
        make_folder(run.path)
        if run.made:
            run.locks.append(lock(run.path, named=out))
        run.fresh = True
        _clear(run.path)
        make_folder(run.work)
        write_json(run.path / "job.json", asked)
    except BaseException:
        run._drop()
        run._unlock()
        raise
    return run


def _take_up(run: RunFolder) -> None:
    """Go on with the run in a folder, which may be whole."""
    for torn in [*run.path.rglob(".*.tmp")]:  # what a kill left half-written, beside the whole ones
        shutil.rmtree(torn) if torn.is_dir() else torn.unlink(missing_ok=True)
    if run.work.exists():
        return
    if run.replaces:
        replace(real(run.out))
    run._unlock()
    run.path, run.finished = run.out, True


def _destination(out: Path, asked: Any, *, resume: bool, overwrite: bool) -> tuple[Path, bool]:
    """Which folder to write, and whether a run in it goes on; refuses, but touches nothing.

    Args:
        asked: the job, or None where it is not known yet.
    """
    place = real(out)
    new = newcomer(place)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --out needs a folder")
    if place.is_symlink():
        raise UserError(f"{out}: is a symbolic link to itself; choose another --out")
    above = next(folder for folder in place.parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{out}: cannot be made, {above} is a file; choose another --out")
    if resume and overwrite:
        raise UserError("give --resume or --overwrite, not both")
    begun = (new / "job.json").is_file()  # a run that was to overwrite this one, and was broken off
    if not _occupied(place) and (overwrite or not begun):
        return place, False
    if overwrite:
        _check_replaceable(place, out)
        return new, False
    if not resume:
        raise UserError(f"{out}: exists already; use --resume, --overwrite or another --out")
    if new.is_dir() and not begun:
        return new, False
    path = new if begun else place
    if not (path / "job.json").is_file():
        raise UserError(f"{out}: holds no run to resume; use --overwrite or another --out")
    started = read_json(path / "job.json", what="job")
    other = [] if asked is None else _differences(started, asked)
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        values = ((name, shown(repr(was)), shown(repr(now))) for name, was, now in other[:3])
        changed = ", ".join(f"{name} was {was}, is {now}" for name, was, now in values) + more
        raise UserError(f"{out}: --resume with other options ({changed}); ask for the same again")
    return path, True


def _occupied(folder: Path) -> bool:
    """Whether something is in a folder that is more than a run killed before it said what it was asked."""
    if not folder.is_dir():
        return False
    return not all(
        entry.match(_TORN_JOB) or (entry.name == "work" and entry.is_dir() and not any(entry.iterdir()))
        for entry in folder.iterdir()
    )


def _differences(started: Any, asked: Any, *, name: str = "") -> list[tuple[str, Any, Any]]:
    """Values in which two jobs differ, with their names; those inside others as ``outer.inner``."""
    if not (isinstance(started, dict) and isinstance(asked, dict)):
        return [] if started == asked else [(name, started, asked)]
    return [
        difference
        for key in sorted(started.keys() | asked.keys())
        for difference in _differences(
            started.get(key), asked.get(key), name=f"{name}.{key}" if name else str(key)
        )
    ]


def _check_replaceable(place: Path, out: Path) -> None:
    """Refuse to replace what is no run, or cannot be replaced as a whole."""
    if not any(_is_ours(place / name) for name in ("job.json", "result.json", "model.json", "compare.json")):
        raise UserError(f"{out}: is not a run folder, --overwrite leaves it alone; remove it yourself")
    here = Path.cwd()
    for holds, why in (
        (place in (here, *here.parents), "it is, or holds, the current folder"),
        (os.path.ismount(place), "it is a mount point"),
        (not os.access(place.parent, os.W_OK), "the folder that it lies in cannot be written"),
    ):
        if holds:
            raise UserError(f"{out}: cannot be replaced, {why}; choose another --out")


def _is_ours(file: Path) -> bool:
    """Whether a JSON file, of one of our names, is one of ours."""
    if not file.is_file():
        return False
    try:
        content = read_json(file, what="file")
    except UserError:
        return False
    return isinstance(content, dict) and ("schema" in content or any(name in content for name in COMMANDS))


def _clear(folder: Path) -> None:
    """Remove what is in a folder; a kill amid it leaves what can be resumed, or was never begun."""
    job, work = folder / "job.json", folder / "work"
    if not work.is_dir():
        _remove(job)  # else it would pass for a whole run
    others = [entry for entry in folder.iterdir() if entry not in (job, work)]
    for entry in (*others, *(work.iterdir() if work.is_dir() else ()), job, work):
        _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
