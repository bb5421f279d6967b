"""The same products of random numbers and of zeros: how much of the energy depends on the data."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.cases.base import FIRST, SECOND, Case, label, tf32_or_ieee
from benchmarks.gpu.cases.gemm import QUICK, product, query

FORMATS = (("bfloat16", "", "", FIRST), ("float8_e4m3", "", "tensor", SECOND), ("float32", "tf32", "", SECOND),
           ("float16", "", "", SECOND), ("int8", "", "", SECOND))  # fmt: skip
SHAPE = (4096, 4096, 4096)


def cases(quick: bool) -> Iterator[Case]:
    """Pairs, one right after the other, so that the board is as warm for both."""
    extents = QUICK if quick else SHAPE
    for form in FORMATS:
        yield from (_case(extents, *form, zeros) for zeros in (False, True))


def _case(extents: tuple[int, int, int], dtype: str, math: str, scale: str, rank: int, zeros: bool) -> Case:
    variant = "zeros" if zeros else ""
    return Case(
        "/".join(filter(None, ("values", variant or "random", dtype, math, label(*extents)))),
        query(*extents, dtype, math, scale),
        lambda torch, device: product(torch, device, *extents, dtype, scale, zeros),
        rank,
        library="cublas",
        variant=variant,
        around=tf32_or_ieee(math),
    )
