"""The extremes."""

from __future__ import annotations

import math

import numpy as np

from eopt.passes.quant.observers.base import Array, Range


class MinMax:
    """Everything seen: no value of the calibration set saturates."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def update(self, array: Array) -> None:
        if array.size:
            self.low = float(np.minimum(self.low, array.min()))
            self.high = float(np.maximum(self.high, array.max()))

    def range(self) -> Range | None:
        return None if self.low == math.inf and self.high == -math.inf else (self.low, self.high)
