"""The children of a region: an immutable sequence that is edited in time far below its length.

A flat graph has one region with every operator in it, so copying a tuple for each rewrite would cost as much as the
model is large. Here the children lie in chunks of about the square root of their number; an edit copies one chunk and
the list of chunks and shares the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import isqrt
from typing import TYPE_CHECKING, TypeAlias, overload

if TYPE_CHECKING:
    from eopt.ir.node import Op, Region

    Node: TypeAlias = Op | Region

MIN_WIDTH = 64  # below this a plain tuple is as fast


class Siblings(Sequence["Node"]):
    """Children in execution order."""

    __slots__ = ("_length", "_width", "chunks")

    def __init__(self, chunks: tuple[tuple[Node, ...], ...], width: int, length: int) -> None:
        self.chunks, self._width, self._length = chunks, width, length

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Siblings:
        """Cut a sequence into chunks."""
        whole = tuple(nodes)
        width = max(MIN_WIDTH, isqrt(len(whole)))
        return cls(_cut(whole, width), width, len(whole))

    def spliced(self, chunk: int, start: int, stop: int, new: tuple[Node, ...]) -> Siblings:
        """A copy with `[start:stop]` of one chunk exchanged for `new`; chunks that grow too wide are cut."""
        if not self.chunks:
            return Siblings.of(new)
        old = self.chunks[chunk]
        changed = (*old[:start], *new, *old[stop:])
        cut = (changed,) if 0 < len(changed) <= 2 * self._width else _cut(changed, self._width)
        length = self._length + len(changed) - len(old)
        return Siblings((*self.chunks[:chunk], *cut, *self.chunks[chunk + 1 :]), self._width, length)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Node]:
        return chain.from_iterable(self.chunks)

    def __reversed__(self) -> Iterator[Node]:
        return chain.from_iterable(reversed(chunk) for chunk in reversed(self.chunks))

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Node, ...]: ...
    def __getitem__(self, index: int | slice) -> Node | tuple[Node, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Siblings):
            return NotImplemented
        return len(self) == len(other) and all(a is b or a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Siblings({tuple(self)!r})"


def _cut(nodes: tuple[Node, ...], width: int) -> tuple[tuple[Node, ...], ...]:
    return tuple(nodes[start : start + width] for start in range(0, len(nodes), width))
