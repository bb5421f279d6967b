"""What every observer offers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Range = tuple[float, float]

UNSIGNED_LEVELS = 256  # of a grid with a zero point
SIGNED_LEVELS = 255  # of int8 from -127 to 127, with the zero point 0


class Observer(Protocol):
    """Accumulates statistics of one tensor in constant memory."""

    def update(self, array: Array) -> None:
        """Take in the values of one batch, of any shape."""
        ...

    def range(self) -> Range | None:
        """Low and high end of the range to represent; not finite after NaN or infinity, None before any value."""
        ...
