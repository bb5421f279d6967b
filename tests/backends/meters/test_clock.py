"""The machine's own clock; nothing is said about how long anything takes."""

from __future__ import annotations

from threading import Event

from eopt.backends.meters.clock import WallClock


def test_an_action_repeats_in_the_background_until_its_context_is_left():
    clock, thrice, polls = WallClock(), Event(), []

    def poll() -> None:
        polls.append(clock.now_s())
        if len(polls) == 3:
            thrice.set()

    with clock.every(0.001, poll):
        assert thrice.wait(30)
    after = len(polls)
    clock.sleep(0.02)
    assert len(polls) == after
    assert polls == sorted(polls)


def test_the_background_ends_when_the_work_fails():
    clock, polls = WallClock(), []
    try:
        with clock.every(0.001, lambda: polls.append(1)):
            raise ValueError
    except ValueError:
        after = len(polls)
    clock.sleep(0.02)
    assert len(polls) == after
