"""Time as measurements see it: tests put a virtual clock in its place and take no time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from typing import Protocol


class Clock(Protocol):
    """Tells time, waits, and does something in the background."""

    def now_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait so long."""
        ...

    def every(self, period_s: float, action: Callable[[], None]) -> AbstractContextManager[None]:
        """Repeat an action in the background until the context is left; the action must not raise."""
        ...


class WallClock:
    """The machine's own time; background actions run in a thread."""

    def now_s(self) -> float:
        """Seconds of the monotonic high-resolution counter."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Wait so long."""
        time.sleep(seconds)

    @contextmanager
    def every(self, period_s: float, action: Callable[[], None]) -> Iterator[None]:
        """Repeat an action in a thread; one that takes longer than the period is not caught up on."""
        left = Event()

        def repeat() -> None:
            action()
            while not left.wait(period_s):
                action()

        thread = Thread(target=repeat, name="eopt-meter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join()
