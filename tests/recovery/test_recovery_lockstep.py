"""Actions in lockstep: who runs when, and what becomes of an error."""

import threading

import pytest

from coprune.recovery.lockstep import Lockstep


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_one_goes_on_before_all_have_come(count):
    together, seen = Lockstep(count), []

    def action(number):
        for step in range(3):
            assert together.turn == number
            seen.append((step, number))
            together.stop()

    together.run(action)
    assert seen == [(step, number) for step in range(3) for number in range(count)]


def test_those_that_stop_less_often_end_and_the_others_go_on():
    together, seen = Lockstep(3), []

    def action(number):
        for step in range(number):
            seen.append((step, number))
            together.stop()

    together.run(action)
    assert seen == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_first_error_ends_all_and_is_raised(failing):
    together, seen = Lockstep(3), []

    def action(number):
        together.stop()
        if number == failing:
            raise ValueError(f"of {number}")
        together.stop()
        seen.append(number)

    with pytest.raises(ValueError, match=f"of {failing}"):
        together.run(action)
    assert seen == []
    assert not [thread for thread in threading.enumerate() if "_one" in thread.name]


def test_a_single_one_stays_in_the_callers_thread():
    found = []
    Lockstep(1).run(lambda number: found.append((number, threading.current_thread())))
    assert found == [(0, threading.current_thread())]
