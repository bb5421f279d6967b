"""What fusion saves: the same few operators one by one, and through torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import COMPILED, FIRST, SECOND, THIRD, TORCH, Call, Case, compiled, label, normal

Shapes = list[list[int]]
SHAPES = ((2048, 4096, 11008, FIRST), (64, 4096, 11008, SECOND), (16384, 768, 3072, THIRD))
"""Tokens, width of the model, and width in the middle."""


def _linear_gelu(torch: Any, x: Any, weight: Any, bias: Any) -> Any:
    return torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))


def _residual_norm(torch: Any, x: Any, other: Any, scale: Any) -> Any:
    total = x + other
    return torch.nn.functional.rms_norm(total, (total.shape[-1],), scale), total


def _swiglu(torch: Any, gate: Any, up: Any) -> Any:
    return torch.nn.functional.silu(gate) * up


# kind -> the function, and its operands for so many tokens, width and width in the middle
KINDS: dict[str, tuple[Callable[..., Any], Callable[[int, int, int], Shapes]]] = {
    "LinearGelu": (_linear_gelu, lambda tokens, width, middle: [[tokens, width], [middle, width], [middle]]),
    "ResidualNorm": (_residual_norm, lambda tokens, width, middle: [[tokens, width], [tokens, width], [width]]),
    "SwiGLU": (_swiglu, lambda tokens, width, middle: [[tokens, middle], [tokens, middle]]),
}


def cases(quick: bool) -> Iterator[Case]:
    """Pairs in bfloat16: each kind eager, then compiled."""
    for *extents, rank in ((4, 16, 32, FIRST),) if quick else SHAPES:
        for kind in KINDS:
            yield from (_case(kind, extents, rank, executor) for executor in (TORCH, COMPILED))


def _case(kind: str, extents: list[int], rank: int, executor: str) -> Case:
    function, operands = KINDS[kind]
    shapes = operands(*extents)
    made: list[Callable[..., Any]] = []  # compiled once, not once a copy

    def make(torch: Any, device: str) -> Call:
        if not made:
            run = partial(function, torch)
            made.append(compiled(torch, run) if executor == COMPILED else run)
        return partial(made[0], *(normal(torch, device, "bfloat16", *shape) for shape in shapes))

    asked = {"op": kind, "inputs": shapes, "dtype": "bfloat16"}
    name = f"fused/{kind}/{executor}/{label(*extents)}"
    return Case(name, asked, make, rank, executor, level="module")
