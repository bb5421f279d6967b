"""What measurements of a device say beyond a cost model: a Gaussian process over the logarithm of measured / predicted.

Its covariance says what may be off together: everything (the device), a family of kernels, one operator, kernels of
similar shape, and trends along sizes, of all kernels and of each family. Nothing is fitted but a few scales, which are
averaged over by their evidence (Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 2.23, 2.24
and 2.30).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from zlib import crc32

import numpy as np

from eopt.costmodel.gaussian import alike
from eopt.costmodel.query import Kernel
from eopt.ir.ops import Unit

Array = np.ndarray[Any, Any]
DEVICE, FAMILY, OPERATOR, TREND = 1.0, 0.7, 0.5, 0.3  # standard deviations of the logarithm before anything is measured
HEAVY = 6.0  # vector operations for each result: a bias and a rectifier are few, GELU and softmax are many
SHAPES, LENGTHS, NOISES = (0.5, 1.0, 2.0), (0.5, 1.0, 2.0), (0.05, 0.1, 0.2)  # what is averaged over


@dataclass(frozen=True)
class Points:
    """Kernels as the process sees them.

    Attributes:
        sizes: float64[n, axes], logarithms of work and extents, about -2 to 2.
        family, operator: int64[n] codes, equal where these are.
    """

    sizes: Array
    family: Array
    operator: Array

    def __len__(self) -> int:
        return len(self.family)

    def take(self, rows: Array) -> Points:
        """Some of them, by index."""
        return Points(self.sizes[rows], self.family[rows], self.operator[rows])


def points(kernels: Sequence[Kernel], seconds: Array) -> Points:
    """Kernels, and float64[n] of what the cost model says they take."""
    sizes = np.array([_sizes(kernel) for kernel in kernels]).reshape(len(kernels), -1)
    families = np.array([crc32(kernel.family.encode()) for kernel in kernels])
    operators = np.array([crc32(f"{kernel.name} {_variant(kernel)}".encode()) for kernel in kernels])
    return Points(np.column_stack([sizes, np.log(seconds / 1e-5) / 3]), families, operators)


def _variant(kernel: Kernel) -> str:
    """What an operator's name does not say: convolutions by channel, and products with vector work fused to them."""
    if kernel.gemm is None:
        return ""
    each = "Conv" in kernel.name and kernel.gemm[0] > 1 and kernel.gemm[2] == 1
    beside = sum(amount for unit, _, amount in kernel.flops if unit is not Unit.MATRIX) / max(1, kernel.elements)
    return ("by channel " if each else "") + ("alone" if not beside else "light" if beside < HEAVY else "heavy")


def _sizes(kernel: Kernel) -> tuple[float, ...]:
    matrix = sum(amount for unit, _, amount in kernel.flops if unit is Unit.MATRIX)
    vector = sum(amount for unit, _, amount in kernel.flops if unit is not Unit.MATRIX)
    batch, m, n, k = kernel.gemm or (1, max(1, kernel.elements // max(1, kernel.row)), kernel.row, 1)
    traffic = kernel.activation_bytes + kernel.weight_bytes
    return (
        _log(matrix, 1e7) / 3, _log(vector, 1e5) / 3, _log(traffic, 1e6) / 3, _log(kernel.weight_bytes, 1e5) / 4,
        _log(batch, 4) / 3, _log(m, 64) / 3, _log(n, 128) / 3, _log(k, 128) / 3,
        _log(vector / max(1, kernel.elements), 4) / 2,
    )  # fmt: skip


def _log(value: float, centre: float) -> float:
    return float(np.log(max(value, 1e-3 * centre) / centre))


def covariance(a: Points, b: Points, shape: float, length: float) -> Array:
    """float64[len(a), len(b)] before anything is measured.

    Args:
        shape: standard deviation of what goes with the shape of a kernel; length: over how far in `sizes`.
    """
    family, operator = a.family[:, None] == b.family[None], a.operator[:, None] == b.operator[None]
    near = alike(a.sizes, b.sizes, length) * family * (1 + operator) / 2
    whole = DEVICE**2 + FAMILY**2 * family + OPERATOR**2 * operator
    return np.asarray(whole + TREND**2 * (a.sizes @ b.sizes.T) * (1 + family) + shape**2 * near)


def variances(a: Points, shape: float) -> Array:
    """float64[n], the diagonal of `covariance`."""
    fixed = DEVICE**2 + FAMILY**2 + OPERATOR**2 + shape**2
    return np.asarray(fixed + 2 * TREND**2 * (a.sizes**2).sum(1))


@dataclass(frozen=True)
class Residual:
    """The process once something is measured.

    Attributes:
        known: what was measured.
        logs: float64[k], logarithm of measured over predicted.
        noise: float64[k], standard deviation of each beyond what is averaged over.
    """

    known: Points
    logs: Array
    noise: Array

    def predict(self, asked: Points) -> tuple[Array, Array]:
        """float64[n] mean and standard deviation of the logarithm of what a new measurement would say over the model's.

        Without anything measured the mean is 0.
        """
        evidence, means, squares = [], [], []
        for log_evidence, mean, variance in self._candidates(asked):
            evidence.append(log_evidence)
            means.append(mean)
            squares.append(variance + mean**2)
        weights = np.exp(np.array(evidence) - max(evidence))
        mean = np.average(means, axis=0, weights=weights)
        square = np.average(squares, axis=0, weights=weights)
        return np.asarray(mean), np.sqrt(np.maximum(square - mean**2, 1e-12))

    def _candidates(self, asked: Points) -> Iterator[tuple[float, Array, Array]]:
        for shape, length in product(SHAPES, LENGTHS):
            own = covariance(self.known, self.known, shape, length)
            cross = covariance(asked, self.known, shape, length)
            for noise in NOISES:
                factor = np.linalg.cholesky(own + np.diag(noise**2 + self.noise**2))
                white, shared = np.linalg.solve(factor, self.logs), np.linalg.solve(factor, cross.T)
                left = variances(asked, shape) - (shared**2).sum(0) + noise**2
                yield float(-0.5 * white @ white - np.log(np.diag(factor)).sum()), shared.T @ white, left
