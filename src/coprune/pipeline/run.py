"""One way to run a job in a folder of its own: check, begin, claim or resume, work, close."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from coprune.pipeline.jobs import Job
from coprune.pipeline.run_folder import RunFolder, claim

J = TypeVar("J", bound=Job)
T = TypeVar("T")


@dataclass(frozen=True)
class Begun(Generic[T]):
    """A job that has passed every check.

    Attributes:
        job: what a resumed run must ask for again.
        work: does it, and writes into the folder.
        finished: what a run comes to that was whole already.
    """

    job: Job
    work: Callable[[RunFolder], T]
    finished: Callable[[], T]


def run(
    command: str,
    job: J,
    begin: Callable[[J], Begun[T]],
    *,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
) -> T:
    """Run a job. Everything that can be wrong with it is found before the folder is touched.

    Args:
        command: whose job it is, of :data:`coprune.pipeline.run_folder.COMMANDS`.
        job: what was asked for.
        begin: loads what it names, and checks all that can be checked.
        out: the folder.
        resume: go on with an interrupted run.
        overwrite: replace an earlier one.

    Raises:
        UserError: anything that the user can mend.
    """
    job.check(out, resume=resume, overwrite=overwrite)
    begun = begin(job)
    asked = {command: begun.job.model_dump(mode="json")}
    folder = claim(out, job=asked, resume=resume, overwrite=overwrite)
    if folder.finished:
        return begun.finished()
    with folder:
        found = begun.work(folder)
        folder.close()
    return found
