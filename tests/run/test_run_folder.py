"""What a kill leaves behind in a run's folder, and what is done with it."""

import errno

import pytest

from coprune.errors import UserError
from coprune.run.folder import claim

JOB = {"prune": {"seed": 0}}


@pytest.mark.parametrize("way", ["resume", "overwrite", None])
def test_a_run_that_was_killed_before_it_said_what_was_asked_starts_anew(tmp_path, way):
    # Once a bug: --resume said to use --overwrite, and that said it was no run folder.
    (tmp_path / "run" / "work").mkdir(parents=True)
    folder = claim(tmp_path / "run", job=JOB, resume=way == "resume", overwrite=way == "overwrite")
    assert folder.fresh
    assert (tmp_path / "run" / "job.json").is_file()


def test_a_folder_named_work_that_holds_something_is_not_ours(tmp_path):
    (tmp_path / "run" / "work").mkdir(parents=True)
    (tmp_path / "run" / "work" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        claim(tmp_path / "run", job=JOB, resume=False, overwrite=False)
    assert (tmp_path / "run" / "work" / "mine.txt").is_file()


def test_a_kill_amid_closing_leaves_a_finished_run(tmp_path, monkeypatch):
    folder = claim(tmp_path / "run", job=JOB, resume=False, overwrite=False)
    (folder.work / "big").write_text("state")
    with monkeypatch.context() as patch:
        patch.setattr("coprune.run.folder.shutil.rmtree", lambda *_, **__: None)
        folder.close()
    again = claim(tmp_path / "run", job=JOB, resume=True, overwrite=False)
    assert again.finished
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["job.json"]


def test_no_free_disk_for_the_log_is_one_line(tmp_path, monkeypatch):
    folder = claim(tmp_path / "run", job=JOB, resume=False, overwrite=False)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match="no free disk"):
        folder.log("plan", kept=1)
