"""What is still to try: each rule at each operator it starts from, and again when a fact it was told has changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from eopt.ir.node import Op
from eopt.passes.match import Fact

Attempt = tuple[int, int]
"""Number of a rule and uid of an operator."""


def anchor_of(op: Op) -> str:
    """The operator's type as rules spell what they start from: `domain.Type` outside the default domain."""
    return f"{op.domain}.{op.op}" if op.domain else op.op


class Worklist:
    """Attempts in the order they came, none twice at a time."""

    def __init__(self, anchors: Sequence[Sequence[str]]) -> None:
        """`anchors` are the operator types each rule starts from."""
        self._rules_from: dict[str, list[int]] = {}
        for number, kinds in enumerate(anchors):
            for kind in kinds:
                self._rules_from.setdefault(kind, []).append(number)
        self._queue: deque[Attempt] = deque()
        self._queued: set[Attempt] = set()
        self._waiting: dict[Fact, dict[Attempt, None]] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, ops: Iterable[Op]) -> None:
        """Try every rule that starts from one of these operators."""
        for op in ops:
            for number in self._rules_from.get(anchor_of(op), ()):
                self.push((number, op.uid))

    def push(self, attempt: Attempt) -> None:
        """Try this, unless it is about to be tried anyway."""
        if attempt not in self._queued:
            self._queued.add(attempt)
            self._queue.append(attempt)

    def pop(self) -> Attempt:
        """The next attempt."""
        attempt = self._queue.popleft()
        self._queued.remove(attempt)
        return attempt

    def wait(self, attempt: Attempt, facts: Iterable[Fact]) -> None:
        """Try this again when one of these facts changes."""
        for fact in facts:
            self._waiting.setdefault(fact, {})[attempt] = None

    def wake(self, facts: Iterable[Fact]) -> None:
        """These facts have changed."""
        for fact in facts:
            for attempt in self._waiting.pop(fact, ()):
                self.push(attempt)
