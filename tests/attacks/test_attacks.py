"""Every row of bad input gets its line, exit 2 or UserError, and leaves nothing behind."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from attack import Attack, World, every_attack

from coprune.errors import UserError

ROWS = every_attack()


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Path → size and time of change, of every file; folders are named too."""
    found = {}
    for path in folder.rglob("*"):
        if "__pycache__" in path.parts:
            continue
        state = path.lstat()
        found[str(path.relative_to(folder))] = (0, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
    return found


@pytest.mark.parametrize("attack", ROWS, ids=[f"{i}-{a.given[:60]}" for i, a in enumerate(ROWS)])
def test_gets_its_line(attack: Attack, world: World, coprune) -> None:
    attack.makes(world)
    before = contents(world.folder)
    if attack.is_command:
        ended = coprune(*shlex.split(attack.given)[1:])
        assert "Traceback" not in ended.err
        if attack.notes:
            assert ended.code == 0, ended
            assert any(attack.matches(line.strip()) for line in (ended.out + ended.err).splitlines()), ended
        else:
            assert (ended.code, ended.out) == (2, ""), ended
            assert attack.matches(ended.err.rstrip("\n")), ended.err
    else:
        with pytest.raises(UserError) as refused:
            eval(attack.given, world.names)
        assert attack.matches(str(refused.value)), str(refused.value)
    after = contents(world.folder)
    new = {name: state for name, state in after.items() if before.get(name) != state}
    assert {name for name in new if name.split("/")[0] not in attack.leaves} == set()
    assert before.keys() <= after.keys()


def test_the_page_of_errors_shows_every_row() -> None:
    from render_errors import rendered

    page = Path(__file__).parents[2] / "docs" / "errors.md"
    assert page.read_text() == rendered(ROWS), "run: make errors-table"
