"""What a kill leaves behind in a run's folder, and what is done with it."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coprune import files
from coprune.errors import UnwrittenError, UserError
from coprune.files import write_text
from coprune.folders import check_idle, lock, newcomer, unlock
from coprune.pipeline.run_folder import claim
from coprune.store import save_model

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
        patch.setattr("coprune.pipeline.run_folder.shutil.rmtree", lambda *_, **__: None)
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


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def work(out: Path, value: str, *, resume=False, overwrite=False, seed=0, ends=None) -> None:
    """A run in small: state, statistics, a model, figures."""
    folder = claim(out, job={"prune": {"seed": seed}}, resume=resume, overwrite=overwrite)
    if folder.finished:
        return
    with folder:
        write_text(folder.work / "rows" / "state.json", value)
        write_text(folder.path / "profile" / "profile.json", value)
        write_text(folder.path / "model.json", value)
        if ends is not None:
            raise ends
        write_text(folder.path / "result.json", value)
        folder.close()


WHOLE = {"job.json", "model.json", "result.json", "profile/profile.json"}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize(
    "ends", [UserError("x"), RuntimeError("x"), KeyboardInterrupt(), UnwrittenError("x", "y")]
)
def test_whatever_ends_an_overwriting_run_the_old_one_is_as_it_was(tmp_path, ends, link):
    work(tmp_path / "run", "old")
    before = contents(tmp_path / "run")
    out = tmp_path / "run"
    if link:
        out = tmp_path / "link"
        out.symlink_to("run")
    with pytest.raises(type(ends)):
        work(out, "new", overwrite=True, ends=ends, seed=1)
    assert contents(out) == before
    new = newcomer(tmp_path / "run")
    # What could go on stays; a mistake leaves nothing.
    assert new.exists() == (type(ends) is not UserError)
    if new.exists():
        with pytest.raises(UserError, match="exists already"):
            work(out, "new", seed=1)
        with pytest.raises(UserError, match=r"other options \(prune.seed was 1, is 2\)"):
            work(out, "new", resume=True, seed=2)
        assert contents(out) == before
        work(out, "new", resume=True, seed=1)
    else:
        work(out, "new", overwrite=True, seed=1)
    assert set(contents(out)) == WHOLE
    assert (out / "model.json").read_text() == "new"
    assert out.is_symlink() == link
    assert {p.name for p in tmp_path.iterdir()} == {"run", out.name}


@pytest.mark.parametrize("there", ["", "a", "a/b/run"])
def test_a_mistake_leaves_the_folders_that_were_there_and_no_others(tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError):
        work(tmp_path / "a" / "b" / "run", "x", ends=UserError("x"))
    found = [p.relative_to(tmp_path) for p in tmp_path.rglob("*")]
    assert {str(p) for p in found} == {str(p) for p in (Path(there), *Path(there).parents)} - {"."}


def test_a_full_disk_keeps_what_is_done_and_says_so(tmp_path):
    full = UnwrittenError("x: no free disk", "free some")
    with pytest.raises(UnwrittenError) as ended:
        work(tmp_path / "run", "x", ends=full)
    assert str(ended.value) == (
        f"x: no free disk; free some and go on: {tmp_path / 'run'} keeps what is done, "
        "the same command with --resume continues"
    )
    assert (tmp_path / "run" / "model.json").is_file()
    work(tmp_path / "run", "x", resume=True)
    assert set(contents(tmp_path / "run")) == WHOLE


def in_a_fork(action, *, after: int | None = None, raising: type[BaseException] | None = None) -> bool:
    """Do something in a process that is ended before its n-th change of the disk; whether it was."""
    child = os.fork()
    if child == 0:
        left = [after]

        def changed(event: str, given: tuple) -> None:
            writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
            if left[0] is None or not (
                writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "fsync")
            ):
                return
            left[0] -= 1
            if left[0] < 0:
                left[0] = None
                if raising is None:
                    os._exit(9)
                raise raising

        fsync = os.fsync
        files.os.fsync = lambda descriptor: (changed("fsync", ()), fsync(descriptor))
        sys.addaudithook(changed)
        try:
            action()
        except BaseException:
            os._exit(0 if left[0] is not None else 9)
        os._exit(0 if left[0] is not None else 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


@pytest.mark.parametrize(
    ("before", "way", "raising"),
    [
        ("nothing", "resume", None),
        ("nothing", "resume", KeyboardInterrupt),
        ("nothing", "overwrite", None),
        ("a run", "resume", None),
        ("a run", "resume", KeyboardInterrupt),
        ("a run", "overwrite", None),
        ("a broken overwriting", "overwrite", None),
    ],
)
def test_an_end_inside_every_write_is_gone_on_with(tmp_path, before, way, raising):
    for n in range(100):
        out = tmp_path / str(n) / "run"
        if before != "nothing":
            work(out, "old")
        if before == "a broken overwriting":
            with pytest.raises(KeyboardInterrupt):
                work(out, "other", overwrite=True, seed=7, ends=KeyboardInterrupt())
        ended = in_a_fork(
            lambda out=out: work(out, "new", overwrite=before != "nothing"), after=n, raising=raising
        )
        if before != "nothing" and out.exists():
            # Of two whole runs it is the one or the other, never a mixture.
            found = {k: v for k, v in contents(out).items() if not k.startswith(".work.tmp/")}
            assert set(found) == WHOLE, n
            assert {v for k, v in found.items() if k != "job.json"} in ({b"old"}, {b"new"}), n
        begun = before == "nothing" or way == "overwrite" or newcomer(out).exists() or not ended
        work(out, "new", **{way: True})
        assert not begun or (out / "model.json").read_text() == "new", n
        assert set(contents(out)) == WHOLE, n
        assert [p.name for p in out.parent.iterdir()] == ["run"], n
        if not ended:
            break
    else:
        pytest.fail("it never came to its end")
    assert n > 20


def test_one_process_a_folder_and_a_dead_one_locks_nobody_out(tmp_path):
    out = tmp_path / "run"
    hold = (
        "import sys, time; from pathlib import Path; from coprune.pipeline.run_folder import claim\n"
        "claim(Path(sys.argv[1]), job={'prune': {'seed': 0}}, resume=False, overwrite=False)\n"
        "print('here', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "here\n"
        before = contents(out)
        for flags in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match="in use, another run is writing there"):
                work(out, "mine", **flags)
        with pytest.raises(UserError, match="in use"):
            check_idle(out)
        assert contents(out) == before
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    work(out, "mine", resume=True)
    assert set(contents(out)) == WHOLE


def test_a_disk_that_a_run_fills_up_really(small_disk, tmp_path):
    out = small_disk / "run"
    with pytest.raises(UnwrittenError, match=r"no free disk for 2,000,000 bytes; .* --resume continues"):
        work(out, "x" * 2_000_000)
    assert (out / "job.json").is_file()
    work(out, "x", resume=True)
    assert set(contents(out)) == WHOLE


@pytest.fixture(scope="module")
def outcome():
    """A pruned network, and what a model was pruned from."""
    import coprune
    import tiny

    net = tiny.network("resnet20", seed=0)
    batches = [(torch.randn(16, 1, 12, 12), torch.arange(16) % 3) for _ in range(6)]
    return net, coprune.prune(
        net, train=batches, eval=batches, keep_units=0.5, method="magnitude", force=True
    )


def test_an_outcome_takes_the_place_of_an_earlier_one_only(outcome, tmp_path):
    net, pruned = outcome
    run = pruned.save(tmp_path / "run")
    (run / "mine.txt").write_text("mine")
    assert pruned.save(run) == run
    assert (run / "mine.txt").read_text() == "mine"
    save_model(tmp_path / "base", net)
    save_model(tmp_path / "both", net)
    pruned.plan.save(tmp_path / "both" / "plan.json")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text("{}")
    before = contents(tmp_path)
    for name, words in (
        ("base", "holds model.safetensors, and no pruned model"),
        ("hub", "holds config.json, and no pruned model"),
        ("both", "holds the model that this was pruned from"),
    ):
        with pytest.raises(UserError, match=words):
            pruned.save(tmp_path / name)
    held = lock(run)
    with pytest.raises(UserError, match="in use"):
        pruned.save(run)
    unlock(held)
    assert contents(tmp_path) == before


def test_an_outcome_that_does_not_fit_leaves_the_earlier_one(outcome, tmp_path, monkeypatch):
    run = outcome[1].save(tmp_path / "run")
    before = contents(tmp_path)
    for error, seen in (
        (OSError(errno.EDQUOT, "quota"), UserError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with monkeypatch.context() as patch:
            fsyncs = iter([None, None, error])

            def broken(_, fsyncs=fsyncs):
                if (cause := next(fsyncs)) is not None:
                    raise cause

            patch.setattr(files.os, "fsync", broken)
            with pytest.raises(seen):
                outcome[1].save(run)
        assert contents(tmp_path) == before
        assert {p.name for p in tmp_path.iterdir()} == {"run"}
