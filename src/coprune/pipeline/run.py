"""One way to run a job in a folder of its own: check, begin, claim or resume, work, close."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TypeAlias

from coprune.pipeline.jobs import Job
from coprune.pipeline.run_folder import RunFolder, claim

Steps: TypeAlias = Generator[Job, RunFolder, None]
"""What a command does, in two parts. The first checks all that can be checked, and yields the job that a
resumed run must ask for again; the second gets the folder, and works."""


def run(
    command: str, job: Job, steps: Steps, *, out: Path, resume: bool = False, overwrite: bool = False
) -> None:
    """Run a job. Everything that can be wrong with it is found before the folder is touched.

    Args:
        command: whose job it is, of :data:`coprune.pipeline.run_folder.COMMANDS`.
        job: what was asked for.
        steps: what it takes; the second part is left out where the run was whole already.
        out: the folder.
        resume: go on with an interrupted run.
        overwrite: replace an earlier one.

    Raises:
        UserError: anything that the user can mend.
    """
    job.check(out, resume=resume, overwrite=overwrite)
    asked = {command: next(steps).model_dump(mode="json")}
    folder = claim(out, job=asked, resume=resume, overwrite=overwrite)
    if folder.finished:
        return
    with folder:
        with contextlib.suppress(StopIteration):
            steps.send(folder)
        folder.close()
