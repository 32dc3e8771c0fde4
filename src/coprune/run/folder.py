"""The run folder: who may write into it, what was asked, and how an interrupted run finds its way.

``run/job.json`` says what was asked. While a run is unfinished its intermediate files live in
``run/work/``; that folder goes when the run is whole.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coprune.errors import UserError
from coprune.files import append_line, make_folder, read_json, write_json
from coprune.ranks.exchange import on_first
from coprune.ranks.join import begin_undoable, end_undoable, keep_undoable
from coprune.ranks.who import is_first


@dataclass(frozen=True)
class RunFolder:
    """A folder that one run owns, used as a context; of several processes the first one writes into it.

    When a run that started here ends with a :class:`~coprune.errors.UserError`, nothing of it stays:
    it could not be resumed, since something about it must change; but see :meth:`keep`. Any other end
    (a kill, an interrupt) leaves what ``--resume`` needs.

    Attributes:
        path: the folder.
        fresh: whether this run made it, rather than taking it up again.
        finished: whether the run that owns it was whole already.
    """

    path: Path
    fresh: bool = False
    finished: bool = False

    def __enter__(self) -> RunFolder:
        if self.fresh:
            begin_undoable(self._drop)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self.fresh:
            end_undoable(self._drop, error)

    def keep(self) -> None:
        """From here on it stays, whatever the run ends with: it holds what has taken long to find."""
        if self.fresh:
            keep_undoable(self._drop)

    def _drop(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def work(self) -> Path:
        """Where unfinished state lives."""
        return self.path / "work"

    def log(self, event: str, **values: Any) -> None:
        """Append one line to ``log.jsonl``."""
        if not is_first():
            return
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
        append_line(self.path / "log.jsonl", line)

    def close(self) -> None:
        """Remove the unfinished state: the run is whole."""
        if is_first():
            # At once: a kill amid removing it would leave a half of what is not to be taken up again.
            going = self.path / ".work.tmp"
            self.work.rename(going)
            shutil.rmtree(going, ignore_errors=True)


def claim(out: Path, *, job: Mapping[str, Any], resume: bool, overwrite: bool) -> RunFolder:
    """Take a folder for a run, or take it up again. The first of several processes does it for all.

    Args:
        out: the folder.
        job: everything that was asked for (JSON values). A resumed run must ask for the same.
        resume: continue what is there; starts anew when nothing is.
        overwrite: remove what is there.

    Raises:
        UserError: the folder is in use and neither ``resume`` nor ``overwrite`` was given, it is
            no folder, it was started with other options, or it cannot be written.
    """
    return on_first(lambda: _claim(out, job=job, resume=resume, overwrite=overwrite))


def _claim(out: Path, *, job: Mapping[str, Any], resume: bool, overwrite: bool) -> RunFolder:
    asked = json.loads(json.dumps(dict(job)))
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --out needs a folder")
    if resume and overwrite:
        raise UserError("give --resume or --overwrite, not both")
    if out.is_dir() and [p.name for p in out.iterdir()] == ["work"] and not any((out / "work").iterdir()):
        shutil.rmtree(out)  # a run was killed before it had said what it was asked
    occupied = out.is_dir() and any(out.iterdir())
    if occupied and overwrite:
        _remove(out)
    elif occupied and resume:
        if not (out / "job.json").is_file():
            raise UserError(f"{out}: holds no run to resume; use --overwrite or another --out")
        started = read_json(out / "job.json", what="job")
        other = _differences(started, asked)
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            said = ", ".join(f"{name} was {was!r}, is {now!r}" for name, was, now in other[:3]) + more
            raise UserError(f"{out}: --resume with other options ({said}); ask for the same again")
        for torn in [*out.rglob(".*.tmp")]:  # what a kill left half-written, beside the whole ones
            shutil.rmtree(torn) if torn.is_dir() else torn.unlink(missing_ok=True)
        return RunFolder(out, finished=not (out / "work").exists())
    elif occupied:
        raise UserError(f"{out}: exists already; use --resume, --overwrite or another --out")
    make_folder(RunFolder(out).work)
    write_json(out / "job.json", asked)
    return RunFolder(out, fresh=True)


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


def _remove(out: Path) -> None:
    """Remove an earlier run, and nothing that is not one."""
    ours = ("job.json", "result.json", "model.json", "compare.json")
    if not any((out / name).exists() for name in ours):
        raise UserError(f"{out}: is not a run folder, --overwrite leaves it alone; remove it yourself")
    try:
        shutil.rmtree(out)
    except OSError as cause:
        raise UserError(f"{out}: cannot be removed ({cause.strerror})") from cause
