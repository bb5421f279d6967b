"""Matrix products in every number format that torch has a kernel for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import FIRST, SECOND, THIRD, Call, Case, Missing, kernel, label, normal, tf32_or_ieee

FORMATS = (
    ("float32", "ieee", ""), ("float32", "tf32", ""), ("bfloat16", "", ""), ("float16", "", ""),
    ("float8_e4m3", "", "tensor"), ("float8_e4m3", "", "channel"), ("int8", "", ""),
)  # fmt: skip
"""dtype, arithmetic of float32, and scales: of a whole tensor, or of each row and column."""
SHAPES = (
    (4096, 4096, 4096, FIRST),
    (16, 4096, 4096, SECOND), (256, 4096, 4096, SECOND), (8192, 8192, 8192, SECOND), (1024, 1024, 1024, SECOND),
    (32, 14336, 4096, THIRD), (2048, 14336, 4096, THIRD), (2048, 4096, 14336, THIRD), (512, 768, 3072, THIRD),
    (8192, 768, 768, THIRD), (64, 1024, 8192, THIRD), (128, 4096, 4096, THIRD), (4096, 1024, 256, THIRD),
)  # fmt: skip
"""m, n, k and rank."""
BATCHED = ((64, 512, 512, 64, SECOND), (512, 128, 128, 64, THIRD))
"""Products of a batch, as of attention that is not fused."""
QUICK = (32, 64, 96)


def cases(quick: bool) -> Iterator[Case]:
    """The products; tiny ones where it is to be quick."""
    shapes = ((*QUICK, FIRST),) if quick else SHAPES
    for m, n, k, rank in shapes:
        yield from (_product(m, n, k, *form, rank) for form in FORMATS)
    if not quick:
        yield _product(16, 4096, 4096, "bfloat16", "", "", FIRST, "skinny")
    for batch, m, n, k, rank in ((2, 8, 8, 8, FIRST),) if quick else BATCHED:
        yield _batched(batch, m, n, k, rank)


def product(torch: Any, device: str, m: int, n: int, k: int, dtype: str, scale: str, zeros: bool = False) -> Call:
    """One product with its own operands.

    Raises:
        Missing: torch has no kernel for the type.
    """
    a, b = normal(torch, device, dtype, m, k), normal(torch, device, dtype, n, k).t()  # columns lie together
    if zeros:
        a, b = torch.zeros_like(a), torch.zeros_like(b)
    if dtype == "int8" and m <= 16:
        raise Missing("torch._int_mm needs more than 16 rows")
    if dtype == "int8":
        return partial(kernel(torch, "_int_mm"), a, b)
    if not dtype.startswith("float8"):
        return partial(torch.mm, a, b)
    sizes = ((m, 1), (1, n)) if scale == "channel" else ((), ())
    scales = [torch.ones(size, device=device) for size in sizes]
    return partial(kernel(torch, "_scaled_mm"), a, b, *scales, out_dtype=torch.bfloat16)


def query(m: int, n: int, k: int, dtype: str, math: str = "", scale: str = "") -> dict[str, Any]:
    """The cost query of a product."""
    return {"op": "MatMul", "inputs": [[m, k], [k, n]], "dtype": dtype, "math": math, "scale": scale}


def _product(m: int, n: int, k: int, dtype: str, math: str, scale: str, rank: int, kind: str = "dense") -> Case:
    return Case(
        "/".join(filter(None, ("gemm", kind, dtype, math, scale, label(m, n, k)))),
        query(m, n, k, dtype, math, scale),
        lambda torch, device: product(torch, device, m, n, k, dtype, scale),
        rank,
        library="cublas",
        around=tf32_or_ieee(math),
    )


def _batched(batch: int, m: int, n: int, k: int, rank: int) -> Case:
    def make(torch: Any, device: str) -> Call:
        return partial(
            torch.bmm, normal(torch, device, "bfloat16", batch, m, k), normal(torch, device, "bfloat16", batch, k, n)
        )

    asked = {"op": "MatMul", "inputs": [[batch, m, k], [batch, k, n]], "dtype": "bfloat16"}
    return Case(f"gemm/batched/bfloat16/{label(batch, m, n, k)}", asked, make, rank, library="cublas")
