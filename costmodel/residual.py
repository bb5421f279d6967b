"""What measurements of a device say beyond a cost model: a Gaussian process over the logarithm of measured / predicted.

Its covariance says what may be off together: everything (the device), a family of kernels, one operator, kernels of
similar shape, and trends along sizes. Nothing is fitted but a few scales, which are averaged over by their evidence
(Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 2.23, 2.24 and 2.30).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from eopt.costmodel.gaussian import alike
from eopt.costmodel.query import Kernel
from eopt.ir.ops import Unit

Array = np.ndarray[Any, Any]
DEVICE, FAMILY, OPERATOR, TREND = 1.0, 0.7, 0.5, 0.3  # standard deviations of the logarithm, before anything is measured
SHAPES, LENGTHS, NOISES = (0.5, 1.0, 2.0), (0.5, 1.0, 2.0), (0.05, 0.1, 0.2)  # what is averaged over


@dataclass(frozen=True)
class Points:
    """Kernels as the process sees them.

    Attributes:
        sizes: float64[n, axes], logarithms of work and extents, about -2 to 2.
        family, operator: float64[n] codes, equal where these are.
    """

    sizes: Array
    family: Array
    operator: Array

    def take(self, rows: Array) -> Points:
        """Some of them, by index."""
        return Points(self.sizes[rows], self.family[rows], self.operator[rows])


def points(kernels: Sequence[Kernel], balance: Array) -> Points:
    """Kernels, and float64[n, 2] of the cost model's: logarithms of compute over memory time, and of latency over launch."""
    sizes = np.array([_sizes(kernel) for kernel in kernels])
    families = np.array([_code(kernel.family) for kernel in kernels])
    operators = np.array([_code(kernel.name + _depthwise(kernel)) for kernel in kernels])
    return Points(np.concatenate([sizes, balance], axis=1), families, operators)


def _code(text: str) -> float:
    """The same number for the same text, in every process."""
    return float(int.from_bytes(text.encode()[-6:], "big"))


def _depthwise(kernel: Kernel) -> str:
    return "/each" if kernel.gemm and kernel.gemm[2] == 1 and kernel.gemm[0] > 1 else ""


def _sizes(kernel: Kernel) -> tuple[float, ...]:
    matrix = sum(amount for unit, _, amount in kernel.flops if unit is Unit.MATRIX)
    vector = sum(amount for unit, _, amount in kernel.flops if unit is not Unit.MATRIX)
    batch, m, n, k = kernel.gemm or (1, max(1, kernel.elements // max(1, kernel.row)), kernel.row, 1)
    per_element = vector / max(1, kernel.elements)
    traffic = kernel.activation_bytes + kernel.weight_bytes
    return (
        _log(matrix, 1e7) / 3, _log(vector, 1e5) / 3, _log(traffic, 1e6) / 3, _log(kernel.weight_bytes, 1e5) / 4,
        _log(batch, 4) / 3, _log(m, 64) / 3, _log(n, 128) / 3, _log(k, 128) / 3, _log(per_element, 4) / 2,
    )  # fmt: skip


def _log(value: float, centre: float) -> float:
    return float(np.log(max(value, 1e-3 * centre) / centre))
