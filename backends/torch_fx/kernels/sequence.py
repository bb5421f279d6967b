"""Sequences as Python lists, optionals as values or None."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.registry import kernel


@kernel("SequenceConstruct")
def construct(*items: Any) -> list[Any]:
    """Of its inputs."""
    return list(items)


@kernel("SequenceEmpty")
def empty(*, dtype: int = 1) -> list[Any]:
    """Of nothing."""
    return []


@kernel("SequenceInsert", host=(2,))
def insert(items: list[Any], item: Any, place: int | list[int] | None = None) -> list[Any]:
    """At the end by default; a place counted from the end stands before that element."""
    at = len(items) if place is None else place[0] if isinstance(place, list) else place
    at = at + len(items) if at < 0 else at
    return [*items[:at], item, *items[at:]]


@kernel("SequenceErase", host=(1,))
def erase(items: list[Any], place: int | None = None) -> list[Any]:
    """The last by default."""
    at = (len(items) - 1 if place is None else place) % len(items)
    return [*items[:at], *items[at + 1 :]]


@kernel("SequenceAt", host=(1,))
def at(items: list[Any], place: int) -> Any:
    """One element."""
    return items[place]


@kernel("SequenceLength")
def length(items: list[Any]) -> Tensor:
    """Number of elements."""
    return torch.tensor(len(items), dtype=torch.int64, device=items[0].device if items else None)


@kernel("ConcatFromSequence")
def concat(items: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    """Along an axis, an old or a new one."""
    return torch.stack(items, axis) if new_axis else torch.cat(items, axis)


@kernel("SplitToSequence", host=(1,))
def split(x: Tensor, sizes: int | list[int] | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Tensor]:
    """By sizes; into single places, with or without the axis, by default."""
    parts = list(torch.split(x, 1 if sizes is None else sizes, axis))
    return parts if sizes is not None or keepdims else [part.squeeze(axis) for part in parts]


@kernel("Optional")
def optional(item: Any = None, *, type: Any = None) -> Any:
    """Something or nothing."""
    return item


@kernel("OptionalGetElement")
def get_element(item: Any) -> Any:
    """What is there."""
    return item


@kernel("OptionalHasElement")
def has_element(item: Any = None) -> Tensor:
    """Whether it is there."""
    return torch.tensor(item is not None)
