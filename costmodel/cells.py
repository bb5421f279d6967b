"""Architectures of two search spaces as work: NAS-Bench-201 cells and FBNet chains of blocks, by kind of operator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# NAS-Bench-201 (Dong and Yang, ICLR 2020): three stages of five cells each, an operator on every edge of a cell.
CELL_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
POOL = CELL_OPS.index("avg_pool_3x3")

# FBNet (Wu and others, CVPR 2019, table 1) as HW-NAS-Bench lists its blocks: kernel, expansion, groups; None skips.
# Stages: width, blocks, stride of the first.
BLOCKS = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1), None)
STAGES = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))
STEM, IMAGE = 16, 112  # channels and extent behind the stem
FLOAT = 4.0  # bytes


def parse_cell(text: str) -> tuple[int, ...]:
    """Operators on `EDGES`, as indices into `CELL_OPS`, of `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

    Raises:
        ValueError: another number of operators, or one that is not in the search space.
    """
    names = re.findall(r"(\w+)~\d", text)
    if len(names) != len(EDGES):
        raise ValueError(f"cell {text!r} has {len(names)} operators; NAS-Bench-201 has {len(EDGES)}")
    if unknown := set(names) - set(CELL_OPS):
        raise ValueError(f"cell {text!r}: no operator {', '.join(sorted(unknown))}; there are {', '.join(CELL_OPS)}")
    return tuple(CELL_OPS.index(name) for name in names)


def live(cell: Sequence[int]) -> tuple[bool, ...]:
    """Which edges lie on a path from the input to the output: a compiler removes the others."""
    used = [op != 0 for op in cell]
    reached, needed = {0}, {3}
    for node in (1, 2, 3):
        if any(on and end == node and start in reached for on, (start, end) in zip(used, EDGES, strict=True)):
            reached.add(node)
    for node in (2, 1, 0):
        if any(on and start == node and end in needed for on, (start, end) in zip(used, EDGES, strict=True)):
            needed.add(node)
    return tuple(on and start in reached and end in needed for on, (start, end) in zip(used, EDGES, strict=True))


def cell_counts(cells: Sequence[Sequence[int]], dead_too: bool = True) -> Array:
    """float64[n, 4]: how often a cell has skip, 1x1 and 3x3 convolution and pooling. Extents are the same for all cells
    of a stage, and each halving of extents doubles channels, so the work of a kind goes with its number.

    Args:
        dead_too: whether edges off every path run as well, as they do where nothing is compiled.
    """
    rows = np.array(cells)
    runs = rows > 0 if dead_too else np.array([live(cell) for cell in cells])
    return np.stack([((rows == op) & runs).sum(1) for op in range(1, len(CELL_OPS))], axis=1).astype(float)


def cell_borders(cells: Sequence[Sequence[int]]) -> Array:
    """float64[n, 2]: nodes that pooling reads, and nodes it writes. Where pooling and convolutions want different
    layouts, so often is a tensor converted."""
    rows = np.array(cells)
    pools = (rows == POOL) & np.array([live(cell) for cell in cells])
    places = [
        [[place for place, edge in enumerate(EDGES) if edge[side] == node] for node in range(4)] for side in (0, 1)
    ]
    return np.stack([sum(pools[:, own].any(1).astype(float) for own in nodes) for nodes in places], axis=1)


def block_work(chains: Array) -> Array:
    """Work of FBNet chains by stage.

    Args:
        chains: int[n, 22], indices into `BLOCKS`.

    Returns:
        float64[n, 7 * 5]: of every stage, operations of 1x1 and of depthwise convolutions, bytes of activations,
        operators, and blocks with grouped convolutions.
    """
    table = np.array([[_block(*layer, block) for block in BLOCKS] for layer in _layers()])
    work = table[np.arange(len(table)), chains]
    bounds = np.cumsum([0, *(blocks for _, blocks, _ in STAGES)])
    stages = [work[:, start:end].sum(1) for start, end in pairwise(bounds)]
    return np.concatenate(stages, axis=1)


def _layers() -> list[tuple[int, int, int, int]]:
    """Input and output channels, stride and extent of the input, of every place for a block."""
    result, channels, extent = [], STEM, IMAGE
    for width, blocks, first in STAGES:
        for stride in (first, *([1] * (blocks - 1))):
            result.append((channels, width, stride, extent))
            channels, extent = width, extent // stride
    return result


def _block(inputs: int, outputs: int, stride: int, extent: int, block: tuple[int, int, int] | None) -> list[float]:
    before, after = extent**2, (extent // stride) ** 2
    outer = FLOAT * (inputs * before + outputs * after)
    if block is None:  # a 1x1 convolution where the shape changes
        changes = inputs != outputs or stride > 1
        return [2.0 * inputs * outputs * after, 0.0, outer, 1.0, 0.0] if changes else [0.0] * 5
    kernel, expansion, groups = block
    inner = inputs * expansion
    products = 2.0 * (inputs * inner * before + inner * outputs * after) / groups
    traffic = outer + 2 * FLOAT * inner * (before + after)
    return [products, 2.0 * kernel**2 * inner * after, traffic, 3.0, float(groups > 1)]
