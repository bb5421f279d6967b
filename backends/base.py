"""What passes may ask of the engines that run a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from eopt.ir.model import Model

Array = np.ndarray[Any, Any]
Feed = Mapping[str, Array]
"""One batch: an array for every graph input."""


class Runner(Protocol):
    """Runs a model on batches."""

    def run(self, model: Model, batches: Iterable[Feed], taps: Sequence[str] = ()) -> Iterator[dict[str, Array]]:
        """Outputs of each batch by name, and with them the intermediate values named in `taps`.

        Raises:
            InputError: the engine cannot load or run the model.
        """
        ...
