"""What pruning saves: products of fewer columns, aligned or not, and of weights with two zeros in four."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import FIRST, SECOND, Call, Case, Missing, kernel, label, normal
from benchmarks.gpu.cases.gemm import query

TOKENS = ((4096, FIRST), (256, SECOND), (16, SECOND))
WIDTH = 4096
KEPT = ((4096, "dense"), (3072, "75%"), (2048, "50%"), (3071, "75%-odd"), (2052, "50%-by-4"))
"""Columns of the weight that are left. Tensor cores read 16 bytes at once: odd widths cannot use them fully."""


def cases(quick: bool) -> Iterator[Case]:
    """Dense, narrower, and 2:4, in float16."""
    tokens, width = (((8, FIRST),), 64) if quick else (TOKENS, WIDTH)
    for m, rank in tokens:
        for left, share in KEPT:
            yield _narrow(m, left * width // WIDTH, width, share, rank)
        yield _sparse(m, width, width, rank)


def _narrow(m: int, n: int, k: int, share: str, rank: int) -> Case:
    def make(torch: Any, device: str) -> Call:
        x, weight = normal(torch, device, "float16", m, k), normal(torch, device, "float16", n, k)
        return partial(torch.nn.functional.linear, x, weight)

    return Case(f"pruned/{share}/{label(m, n, k)}", query(m, n, k, "float16"), make, rank, library="cublas")


def _sparse(m: int, n: int, k: int, rank: int) -> Case:
    def make(torch: Any, device: str) -> Call:
        if device == "cpu":
            raise Missing("torch has no 2:4 sparse products on a CPU")
        weight = normal(torch, device, "float16", n, k)
        weight *= torch.tensor([0, 0, 1, 1], device=device, dtype=weight.dtype).tile(n, k // 4)
        packed = kernel(torch.sparse, "to_sparse_semi_structured")(weight)
        return partial(torch.nn.functional.linear, normal(torch, device, "float16", m, k), packed)

    asked = query(m, n, k, "float16")
    return Case(f"pruned/sparse24/{label(m, n, k)}", asked, make, rank, variant="sparse24")
