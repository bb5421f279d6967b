"""Attention over a prompt and over a cache, with as many heads of keys as of queries or fewer, by backend."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import FIRST, SECOND, THIRD, Call, Case, Missing, kernel, label, normal

BACKENDS = {"flash-attention": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION"}
# batch, heads of queries and of keys, queries, keys, size of a head, rank
PREFILL = ((4, 32, 8, 2048, 2048, 128, FIRST), (1, 32, 32, 4096, 4096, 128, SECOND), (32, 12, 12, 128, 128, 64, SECOND),
           (16, 16, 16, 512, 512, 64, THIRD), (1, 32, 8, 8192, 8192, 128, THIRD))  # fmt: skip
DECODE = ((32, 32, 8, 1, 4096, 128, FIRST), (1, 32, 8, 1, 4096, 128, SECOND), (8, 32, 32, 1, 2048, 128, SECOND),
          (128, 32, 8, 1, 1024, 128, THIRD), (1, 32, 8, 1, 32768, 128, THIRD))  # fmt: skip
QUICK_PREFILL = ((1, 4, 2, 16, 16, 8, FIRST),)
QUICK_DECODE = ((2, 4, 2, 1, 16, 8, FIRST),)


def cases(quick: bool) -> Iterator[Case]:
    """Prefill is causal, decode is one query for each sequence; bfloat16, as models are served."""
    for stage, shapes in (
        ("prefill", QUICK_PREFILL if quick else PREFILL),
        ("decode", QUICK_DECODE if quick else DECODE),
    ):
        for shape in shapes:
            yield from (_attention(stage, *shape, library) for library in BACKENDS)


def _attention(
    stage: str, batch: int, heads: int, groups: int, queries: int, keys: int, size: int, rank: int, library: str
) -> Case:
    shapes = [[batch, heads, queries, size], *[[batch, groups, keys, size]] * 2]

    def make(torch: Any, device: str) -> Call:
        if device == "cpu" and library == "cudnn":
            raise Missing("cuDNN has no attention on a CPU")
        attend = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=stage == "prefill")
        tensors = [normal(torch, device, "bfloat16", *shape) for shape in shapes]
        return partial(attend, *tensors, enable_gqa=heads != groups)

    def around(torch: Any) -> Any:
        from torch.nn import attention

        return attention.sdpa_kernel(kernel(attention.SDPBackend, BACKENDS[library]))

    attrs = {"is_causal": 1} if stage == "prefill" else {"past": keys - queries}
    asked = {"op": "Attention", "inputs": shapes, "dtype": "bfloat16", "attrs": attrs}
    name = f"attention/{stage}/{library}/{label(batch, heads, groups, queries, keys, size)}"
    return Case(name, asked, make, rank, library=library, around=around)
