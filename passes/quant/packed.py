"""Quantised weights as com.microsoft.MatMulNBits stores them.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eopt.passes.quant.blocks import BlockWeight

Array = np.ndarray[Any, Any]


def nbits(weight: BlockWeight) -> tuple[Array, Array, Array | None]:
    """A weight of n columns in groups as the operator's B, scales and zero points.

    Returns:
        uint8 [n, groups, group * bits / 8], float32 [n, groups], and uint8 [n, ceil(groups * bits / 8)] or None where
        the operator's own zero point, the middle of the range, is meant.
    """
    spec = weight.spec
    assert spec.group is not None
    offset = 1 << spec.bits - 1 if spec.symmetric else 0
    groups, n = weight.scales.shape
    stored = np.zeros((n, groups * spec.group), np.uint8)  # what is past the last row meets no activation
    stored[:, : len(weight.integers)] = weight.integers.T + np.uint8(offset)
    zero_points = None if spec.symmetric else _packed(np.ascontiguousarray(weight.zero_points.T), spec.bits)
    packed = _packed(stored, spec.bits).reshape(n, groups, -1)
    return packed, np.ascontiguousarray(weight.scales.T), zero_points


def _packed(rows: Array, bits: int) -> Array:
    """uint8 [n, m]; two 4-bit numbers share a byte, the first in its lower half."""
    if bits == 8:
        return rows
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    return np.asarray(even[:, 0::2] | even[:, 1::2] << 4)
