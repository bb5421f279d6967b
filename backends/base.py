"""What passes may ask of the engines that run a model, and how any layer says that it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from eopt.ir.model import Model

Array = np.ndarray[Any, Any]
Feed = Mapping[str, Array]
"""One batch: an array for every graph input."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer, and why. Never zero."""

    reasons: tuple[str, ...]


class Runner(Protocol):
    """Runs a model on batches."""

    def run(self, model: Model, batches: Iterable[Feed], taps: Sequence[str] = ()) -> Iterator[dict[str, Array]]:
        """Outputs of each batch by name, and with them the intermediate values named in `taps`.

        Raises:
            InputError: the engine cannot load or run the model.
        """
        ...
