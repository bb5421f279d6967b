"""Many kernels at once: arrays of what a kernel is, and the quantities and features the learned model reads.

Quantities are seconds a device would take at its peaks and go through the physics; features describe the shape of the
work and are bounded. No feature contains a rate or a bandwidth (see `embedding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.costmodel.embedding import Device
from eopt.costmodel.query import Kernel
from eopt.costmodel.roofline import SPLIT_K
from eopt.ir.ops import Unit

Floats = np.ndarray[Any, np.dtype[np.float64]]
Array = np.ndarray[Any, Any]

FAMILIES = ("gemm", "conv", "attention", "decode", "moe", "norm", "softmax", "pointwise", "move")
TYPES = ("float64", "float32", "tf32", "float16", "bfloat16", "float8", "float4", "int8", "int4")
SCALES = ("", "tensor", "channel", "block", "nvfp4", "mx")
EXECUTORS = ("torch", "vllm", "tensorrt", "torch-compile", "onnxruntime", "other")
BACK_TO_BACK = "other"
"""Among the executors: kernels as a profiler times them alone."""
RUNTIMES = ("amd", "intel")  # vendors whose launches go through another runtime than CUDA
TILES = ((256, 128, 1.0), (128, 128, 0.95), (128, 64, 0.85), (64, 64, 0.7))  # rows, columns, share of the best rate
BY_ROW = ("norm", "softmax")
PRODUCTS = ("gemm", "conv", "attention", "decode", "moe")


@dataclass(frozen=True)
class Table:
    """Kernels as columns, all of one length.

    Attributes:
        family, dtype, scale: indices into `FAMILIES`, `TYPES`, `SCALES`.
        matrix_flops, vector_flops: operations by unit.
        activation_bytes, weight_bytes: traffic across the kernel's boundary.
        problem: float64[n, 4], batch, m, n and k of a product; 1, rows, row length and 1 elsewhere, the row of
            elementwise work being one element.
        elements: of the largest result.
        weight_bits, sharing: as in `Kernel`.
    """

    family: Array
    dtype: Array
    scale: Array
    matrix_flops: Floats
    vector_flops: Floats
    activation_bytes: Floats
    weight_bytes: Floats
    problem: Floats
    elements: Floats
    weight_bits: Array
    sharing: Floats

    def __len__(self) -> int:
        return len(self.family)

    def take(self, rows: Array) -> Table:
        """Some of the rows, by index or mask."""
        return Table(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def table(kernels: Sequence[Kernel]) -> Table:
    """The columns of a list of kernels."""
    count = len(kernels)
    numbers = np.empty((count, 10))
    codes = np.empty((count, 4), dtype=np.int8)
    for row, kernel in enumerate(kernels):
        codes[row], numbers[row] = _row(kernel)
    return Table(
        codes[:, 0], codes[:, 1], codes[:, 2], numbers[:, 0], numbers[:, 1], numbers[:, 2], numbers[:, 3],
        numbers[:, 4:8], numbers[:, 8], codes[:, 3], numbers[:, 9],
    )  # fmt: skip


def _row(kernel: Kernel) -> tuple[tuple[int, int, int, int], tuple[float, ...]]:
    matrix = vector = 0.0
    dtype = "float32"
    for unit, kind, amount in kernel.flops:
        if unit is Unit.MATRIX:
            matrix, dtype = matrix + amount, kind
        else:
            vector, dtype = vector + amount, dtype if matrix else kind
    family = kernel.family
    name = _type(dtype, kernel)
    row = kernel.row if family in BY_ROW else 1  # elementwise work does not care how its elements are arranged
    problem = kernel.gemm or (1, max(1, kernel.elements // max(1, row)), row, 1)
    scale = SCALES.index(kernel.scale) if kernel.scale in SCALES else 0
    traffic = (kernel.activation_bytes, kernel.weight_bytes)
    codes = FAMILIES.index(family), TYPES.index(name), scale, kernel.weight_bits
    return codes, (matrix, vector, *traffic, *problem, kernel.elements, kernel.sharing)


def _type(dtype: str, kernel: Kernel) -> str:
    """The type that has a rate: narrow floats of one width are one, float32 products may run in tf32."""
    name = str(dtype)
    if name.startswith(("float8", "float4")):
        return name[:6]
    if name == "float32" and kernel.math == "tf32":
        return "tf32"
    return "int8" if name == "uint8" else name if name in TYPES else "float32"


def quantities(rows: Table, chip: Device) -> Floats:
    """float64[n, 9]: seconds of matrix and vector work at the peaks, bytes, bandwidth and cache bandwidth in bytes/s,
    cache bytes, the logarithm of the share of the chip that whole tiles in whole waves keep busy, the power that the
    arithmetic would draw at the peak over what there is, and the clock in Hz."""
    rates = np.array([chip.rates[name][0] for name in TYPES])
    total, grid = rows.activation_bytes + rows.weight_bytes, _grid(rows)
    busy = np.max([share * _waves(grid, r, c, chip.cores)[0] for r, c, share in TILES], axis=0)
    product = np.isin(rows.family, [FAMILIES.index(name) for name in PRODUCTS])
    on_matrix = np.where(product, rows.matrix_flops / rates[rows.dtype], 0.0)
    on_vector = (rows.vector_flops + np.where(product, 0.0, rows.matrix_flops)) / chip.vector_rate
    flat = np.ones(len(rows))
    return np.stack(
        [
            on_matrix, on_vector, np.maximum(total, 1.0), flat * chip.bandwidth,
            flat * max(chip.llc_bandwidth, 1.5 * chip.bandwidth), flat * chip.llc_bytes,
            np.where(product, np.log(np.maximum(busy, 1e-4)), 0.0),
            np.where(product, np.array([chip.demand[name] for name in TYPES])[rows.dtype], chip.vector_demand),
            flat * chip.clock_hz,
        ], axis=1,
    )  # fmt: skip


def features(rows: Table, chip: Device, executor: str) -> Array:
    """float32[n, FEATURES + LAUNCH], each within -4 and 4. Who launches stands last and apart, executor and runtime: it
    decides how often a launch comes, and not how well the kernels of a library do, as types and libraries were measured
    together."""
    batch, m, n, k = rows.problem.T
    total = np.maximum(rows.activation_bytes + rows.weight_bytes, 1.0)
    grid = _grid(rows)
    large, small = (_waves(grid, size, size, chip.cores) for size in (128, 64))
    work = rows.matrix_flops + rows.vector_flops
    emulated = np.array([chip.rates[name][1] != name for name in TYPES])[rows.dtype]
    block = rows.scale == SCALES.index("block")
    columns = [
        _log2(large[1] / chip.cores) / 4, _log2(small[1] / chip.cores) / 4,
        np.log(np.maximum(large[0], 1e-4)), np.log(np.maximum(small[0], 1e-4)),
        np.log(np.maximum(_waves(grid, 256, 128, chip.cores)[0], 1e-4)),
        _log2(m) / 6 - 1, _log2(n) / 6 - 1.5, _log2(k) / 6 - 1.5, _log2(batch) / 5,
        _log2(total / chip.llc_bytes) / 6, _log2(rows.weight_bytes / chip.llc_bytes + 1e-6) / 6,
        _log2(work / total + 1e-3) / 5 - 1, _alignment(m), _alignment(n), _alignment(k),
        _log2(rows.elements / chip.cores / 1024) / 6, _log2(total / 1e6) / 6,
        _log2(work / np.maximum(rows.elements, 1) + 1e-2) / 5, _log2(total / np.maximum(rows.elements, 1) + 1e-2) / 4,
        rows.weight_bits == 8, rows.weight_bits == 4, emulated,
        block & chip.block_scaled, block & (not chip.block_scaled),
    ]  # fmt: skip
    columns += [rows.scale == code for code in range(len(SCALES))]
    columns += [rows.dtype == code for code in range(len(TYPES))]
    name = executor if executor in EXECUTORS else BACK_TO_BACK
    columns += [np.full(len(rows), name == known) for known in EXECUTORS]
    columns += [np.full(len(rows), chip.vendor == known) for known in RUNTIMES]
    return np.clip(np.stack(columns, axis=1).astype(np.float32), -4, 4)


FIRST_SCALE = 24
FEATURES = FIRST_SCALE + len(SCALES) + len(TYPES)
LAUNCH = len(EXECUTORS) + len(RUNTIMES)


def _grid(rows: Table) -> Floats:
    """The product whose tiles fill the chip: of attention the second, by head of keys, which are summed over."""
    attends = np.isin(rows.family, [FAMILIES.index(name) for name in ("attention", "decode")])
    batch, m, n, k = rows.problem.T
    second = np.stack([batch / rows.sharing, m * rows.sharing, k, n], axis=1)
    return np.where(attends[:, None], second, rows.problem)


def _waves(problem: Floats, rows: int, columns: int, cores: float) -> tuple[Floats, Floats]:
    """Share of the chip kept busy by whole tiles in whole waves, and the number of tiles."""
    batch, m, n, k = problem.T
    across, down = np.ceil(m / rows), np.ceil(n / columns)
    tiles = np.maximum(batch * across * down, 1.0)
    slices = np.where(tiles < cores, np.clip(np.minimum(cores // tiles, k // SPLIT_K), 1, None), 1)
    waves = np.ceil(tiles * slices / cores)
    padded = m * n / np.maximum(across * rows * down * columns, 1.0)
    return padded * tiles * slices / (waves * cores), tiles


def _log2(values: Floats) -> Floats:
    return np.asarray(np.log2(np.maximum(values, 1e-9)))


def _alignment(extent: Floats) -> Floats:
    """Powers of two in an extent, up to 64, over 6."""
    whole = np.maximum(extent, 1).astype(np.int64)
    return np.asarray(np.log2(np.minimum(whole & -whole, 64)) / 6)
