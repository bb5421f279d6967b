"""Normalisations and softmax, which go over rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import FIRST, SECOND, THIRD, Call, Case, label, normal

SHAPES = ((8192, 4096, FIRST), (32, 4096, SECOND), (8192, 768, SECOND), (2048, 8192, THIRD), (65536, 1024, THIRD))
OPERATORS = ("LayerNormalization", "RMSNormalization", "Softmax")


def cases(quick: bool) -> Iterator[Case]:
    """Rows and their length, in bfloat16; the shapes after the first also in float32."""
    for rows, width, rank in ((4, 32, FIRST),) if quick else SHAPES:
        for dtype in ("bfloat16",) if rank == FIRST else ("bfloat16", "float32"):
            yield from (_rows(op, rows, width, dtype, rank) for op in OPERATORS)


def _rows(op: str, rows: int, width: int, dtype: str, rank: int) -> Case:
    scales = {"LayerNormalization": 2, "RMSNormalization": 1, "Softmax": 0}[op]

    def make(torch: Any, device: str) -> Call:
        functional = torch.nn.functional
        x, *given = (normal(torch, device, dtype, *shape) for shape in shapes)
        if op == "Softmax":
            return partial(functional.softmax, x, -1)
        return partial(functional.layer_norm if scales == 2 else functional.rms_norm, x, (width,), *given)

    shapes = [[rows, width], *[[width]] * scales]
    asked = {"op": op, "inputs": shapes, "dtype": dtype, "attrs": {"axis": -1}}
    return Case(f"norm/{op}/{dtype}/{label(rows, width)}", asked, make, rank)
