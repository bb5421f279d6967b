"""Elementwise work, reductions, gathers and copies: bound by memory, or by launching."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import FIRST, SECOND, THIRD, Call, Case, label, normal

SHAPES = ((8192, 4096, FIRST), (256, 1024, SECOND), (32768, 8192, SECOND), (2048, 2048, THIRD), (16, 1024, THIRD))
LOOKUPS = ((32000, 4096, 8192, FIRST), (128256, 4096, 64, SECOND), (30522, 768, 16384, SECOND), (1 << 20, 64, 1 << 18,
           THIRD))  # fmt: skip
"""Words, their width, and how many are looked up."""
# operator -> operands of the same shape, attributes, rank at the earliest, and the call on torch and them
OPERATORS: dict[str, tuple[int, dict[str, Any], int, Callable[..., Any]]] = {
    "Add": (2, {}, FIRST, lambda torch, x, y: partial(torch.add, x, y)),
    "Gelu": (1, {}, FIRST, lambda torch, x: partial(torch.nn.functional.gelu, x)),
    "Mul": (2, {}, SECOND, lambda torch, x, y: partial(torch.mul, x, y)),
    "Relu": (1, {}, SECOND, lambda torch, x: partial(torch.relu, x)),
    "Sigmoid": (1, {}, SECOND, lambda torch, x: partial(torch.sigmoid, x)),
    "Swish": (1, {}, SECOND, lambda torch, x: partial(torch.nn.functional.silu, x)),
    "Exp": (1, {}, THIRD, lambda torch, x: partial(torch.exp, x)),
    "ReduceMean": (1, {"axes": [-1]}, FIRST, lambda torch, x: partial(torch.mean, x, -1, True)),
    "ReduceMax": (1, {"axes": [-1]}, SECOND, lambda torch, x: partial(torch.amax, x, -1, True)),
    "Transpose": (1, {"perm": [1, 0]}, SECOND, lambda torch, x: partial(torch.clone, x.t(), **_plain(torch))),
    "Concat": (2, {"axis": 0}, SECOND, lambda torch, x, y: partial(torch.cat, (x, y))),
}


def cases(quick: bool) -> Iterator[Case]:
    """Every operator in bfloat16, after the first shape also in float32; words looked up at random."""
    for rows, width, rank in ((4, 32, FIRST),) if quick else SHAPES:
        for dtype in ("bfloat16",) if rank == FIRST else ("bfloat16", "float32"):
            yield from (_elementwise(op, rows, width, dtype, rank) for op in OPERATORS)
    for words, width, count, rank in ((64, 16, 8, FIRST),) if quick else LOOKUPS:
        yield _lookup(words, width, count, rank)


def _plain(torch: Any) -> dict[str, Any]:
    return {"memory_format": torch.contiguous_format}


def _elementwise(op: str, rows: int, width: int, dtype: str, rank: int) -> Case:
    operands, attrs, earliest, call = OPERATORS[op]
    shapes = [[rows, width]] * operands
    asked = {"op": op, "inputs": shapes, "dtype": dtype, "attrs": attrs}
    return Case(
        f"pointwise/{op}/{dtype}/{label(rows, width)}",
        asked,
        lambda torch, device: call(torch, *(normal(torch, device, dtype, *shape) for shape in shapes)),
        max(rank, earliest),
    )


def _lookup(words: int, width: int, count: int, rank: int) -> Case:
    table: Callable[[], Any] = lambda: None

    def make(torch: Any, device: str) -> Call:
        nonlocal table
        words_held = table()
        if words_held is None:  # copies share the table, as long as one of them lives, and look up other words
            words_held = normal(torch, device, "bfloat16", words, width)
            table = weakref.ref(words_held)
        return partial(torch.nn.functional.embedding, torch.randint(words, (count,), device=device), words_held)

    asked = {"op": "Gather", "inputs": [[words, width], [count]], "dtype": "bfloat16"}
    return Case(
        f"pointwise/Gather/bfloat16/{label(words, width, count)}", asked, make, rank, touched_bytes=2 * count * width
    )
