"""Another predictor on the rows that the model is scored on: an artefact in a folder, or one that is installed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.costmodel import registry, service
from eopt.costmodel.datasets.base import QUERY
from eopt.costmodel.learned import Learned
from eopt.costmodel.query import CostModel, Kernel
from eopt.costmodel.records import row_kernels
from eopt.costmodel.samples import Samples
from eopt.costmodel.scores import Errors
from eopt.costmodel.service import FIGURES
from eopt.ir.errors import UsageError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contender:
    """A cost model under test.

    Attributes:
        name: of the method in the scores.
        devices: those it was trained on, as it says itself; nothing is known where a third party says nothing.
    """

    name: str
    model: CostModel
    devices: tuple[str, ...] = ()

    @classmethod
    def named(cls, name: str) -> Contender:
        """By the name it is installed under, or the folder of an artefact.

        Raises:
            UsageError: no such model.
            InputError: the folder holds none.
        """
        model = registry.load(name)
        if isinstance(model, Learned):
            return cls(name, model, model.model.network.devices)
        return cls(name, model, model.devices if isinstance(model, registry.Foreign) else ())

    def refuse_seen(self, asked: Collection[str]) -> None:
        """Raise where it was trained on a device that is to be scored.

        Raises:
            UsageError: names these devices.
        """
        seen = sorted(set(asked) & set(self.devices))
        if seen:
            without = " ".join(f"--exclude-device {name}" for name in seen)
            raise UsageError(
                f"--model {self.name}: was trained on {', '.join(seen)}, which this evaluation scores; "
                f"train one that was not (eopt data train {without}), or leave out others (--fold, --device)"
            )

    def errors(self, asked: Samples) -> dict[str, Errors]:
        """Of latency and energy, from the sheets alone."""
        figures = self._figures(asked)
        measured_j = asked.latency_s * asked.power_w
        return {"latency": _errors(figures[:, :3], asked.latency_s), "energy": _errors(figures[:, 3:], measured_j)}

    def _figures(self, asked: Samples) -> Array:
        """float64[n, 6] as `service.FIGURES`; NaN where there is no answer."""
        figures = np.full((len(asked.latency_s), len(FIGURES)), np.nan)
        texts = asked.frame["executor"].astype("string").fillna("").to_numpy()
        kernels = _kernels(asked)
        for place in np.unique(asked.device):
            target = targets.load(asked.devices[place])
            for engine in np.unique(texts[asked.device == place]):
                rows = np.flatnonzero((asked.device == place) & (texts == engine))
                executor = executors.load(engine) if engine in executors.names() else executors.default_for(target)
                asks = [kernels[row] for row in rows.tolist()], [executor.name] * len(rows), target, executor
                figures[rows] = service.estimate(*asks, self.model).values
        return figures


def _kernels(asked: Samples) -> Sequence[Kernel]:
    """Samples have one kernel each."""
    columns = [asked.frame[name] for name in QUERY]
    return [row_kernels(*row)[0] for row in zip(*columns, strict=True)]


def _errors(figures: Array, measured: Array) -> Errors:
    """Figure, lower and upper bound beside what was measured; rows without a measurement stay out."""
    error = np.where(np.isnan(figures[:, 0]), -np.inf, np.log(figures[:, 0])) - np.log(measured)
    return Errors(error, np.log(figures[:, 0] / figures[:, 1]), np.log(figures[:, 2] / figures[:, 0]))
