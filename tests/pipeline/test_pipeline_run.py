"""One way to run a job: what is wrong is found before the folder is touched, and nothing is done twice."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from coprune.errors import UserError
from coprune.pipeline.run import run
from coprune.pipeline.run_folder import check_out


class Job(BaseModel):
    """What is asked for."""

    model: str = "none"
    size: int = 1

    def check(self, out, *, resume, overwrite):
        check_out(out, self, resume=resume, overwrite=overwrite)


def steps(job, *, work=lambda _: None):
    work((yield job))


def test_a_job_that_its_checks_refuse_leaves_nothing(tmp_path):
    def refused(job):
        raise UserError("wrong")
        yield job

    with pytest.raises(UserError, match="wrong"):
        run("prune", Job(), refused(Job()), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_whole_run_is_not_done_again_and_another_job_is_refused(tmp_path):
    out, worked = tmp_path / "run", []
    run("prune", Job(), steps(Job(), work=worked.append), out=out)
    assert len(worked) == 1
    assert not (out / "work").exists()
    run("prune", Job(), steps(Job(), work=worked.append), out=out, resume=True)
    assert len(worked) == 1
    with pytest.raises(UserError, match=r"prune\.size was 1, is 2"):
        run("prune", Job(size=2), steps(Job(size=2)), out=out, resume=True)


def test_the_job_that_begins_is_the_one_that_a_resumed_run_must_ask_for(tmp_path):
    out, worked = tmp_path / "run", []

    def stopped(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("prune", Job(), steps(Job(size=7), work=stopped), out=out)
    assert (out / "work").is_dir()
    with pytest.raises(UserError, match="size was 7"):
        run("prune", Job(size=1), steps(Job(size=1)), out=out, resume=True)
    run("prune", Job(size=7), steps(Job(size=7), work=worked.append), out=out, resume=True)
    assert len(worked) == 1


def test_what_a_user_can_mend_takes_the_folder_with_it(tmp_path):
    def late(folder):
        (folder.path / "plan.json").write_text("{}")
        raise UserError("found late")

    with pytest.raises(UserError, match="found late"):
        run("prune", Job(), steps(Job(), work=late), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
