"""Products of wide activations with int4 and int8 weights, for few and many tokens, beside bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import FIRST, SECOND, THIRD, Call, Case, kernel, label, normal
from benchmarks.gpu.cases.gemm import query

TOKENS = ((1, FIRST), (16, FIRST), (128, FIRST), (4, SECOND), (32, SECOND), (64, SECOND), (8, THIRD))
WEIGHTS = ((4096, 4096, FIRST), (14336, 4096, SECOND), (4096, 14336, THIRD))
GROUP = 128  # weights along k that share a scale
TILES = 8  # of 16 along k that tinygemm packs together


def cases(quick: bool) -> Iterator[Case]:
    """int4 in blocks, int8 by row, and none, so that a ratio needs no other file."""
    tokens = ((1, FIRST), (4, FIRST)) if quick else TOKENS
    for n, k, rank in ((32, 256, FIRST),) if quick else WEIGHTS:
        for m, earliest in tokens:
            for kind in ("bfloat16", "int4", "int8"):
                yield _case(m, n, k, kind, max(rank, earliest))


def _case(m: int, n: int, k: int, kind: str, rank: int) -> Case:
    make = {"bfloat16": _dense, "int4": _int4, "int8": _int8}[kind]
    scale = {"int4": f"block:{GROUP}", "int8": "channel"}.get(kind, "")
    asked = query(m, n, k, "bfloat16", scale=scale)
    if kind != "bfloat16":
        asked["weight_dtype"] = kind
    library = {"bfloat16": "cublas", "int4": "tinygemm"}.get(kind, "torch")
    name = f"weight_only/{kind}/{label(m, n, k)}"
    return Case(name, asked, lambda torch, device: make(torch, device, m, n, k), rank, library=library)


def _dense(torch: Any, device: str, m: int, n: int, k: int) -> Call:
    weight = normal(torch, device, "bfloat16", n, k)
    return partial(torch.nn.functional.linear, normal(torch, device, "bfloat16", m, k), weight)


def _int4(torch: Any, device: str, m: int, n: int, k: int) -> Call:
    x = normal(torch, device, "bfloat16", m, k)
    scales = torch.full((k // GROUP, n, 2), 0.1, device=device, dtype=torch.bfloat16)  # and zero points
    if device == "cpu":
        given = torch.randint(0, 16, (n, k), dtype=torch.int32)
        packed = kernel(torch, "_convert_weight_to_int4pack_for_cpu")(given, TILES)
        return partial(kernel(torch, "_weight_int4pack_mm_for_cpu"), x, packed, GROUP, scales)
    given = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device=device)  # two weights a byte
    packed = kernel(torch, "_convert_weight_to_int4pack")(given, TILES)
    return partial(kernel(torch, "_weight_int4pack_mm"), x, packed, GROUP, scales)


def _int8(torch: Any, device: str, m: int, n: int, k: int) -> Call:
    x, weight = normal(torch, device, "bfloat16", m, k), normal(torch, device, "int8", n, k)
    scales = torch.full((n,), 0.1, device=device, dtype=torch.bfloat16)
    return partial(kernel(torch, "_weight_int8pack_mm"), x, weight, scales)
