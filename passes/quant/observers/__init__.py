"""Observers watch an activation tensor over the calibration batches and say which range deserves the grid."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from eopt.passes.quant.observers.base import Observer
from eopt.passes.quant.observers.entropy import Entropy
from eopt.passes.quant.observers.minmax import MinMax
from eopt.passes.quant.observers.mse import Mse
from eopt.passes.quant.observers.percentile import Percentile

__all__ = ["Entropy", "MinMax", "Mse", "Observer", "ObserverKind", "Observing", "Percentile", "observer"]


class ObserverKind(StrEnum):
    """The observers a user can choose from."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(frozen=True)
class Observing:
    """A choice of an observer; called, it gives a fresh one.

    Attributes:
        percentile: share of values to keep, in percent; read by `percentile` alone.
        symmetric: the grid has the zero point 0; read by `entropy` and `mse`.
    """

    kind: ObserverKind = ObserverKind.MINMAX
    percentile: float = 99.999
    symmetric: bool = False

    def __call__(self) -> Observer:
        return observer(self.kind, self.percentile, self.symmetric)


def observer(kind: ObserverKind, percentile: float, symmetric: bool = False) -> Observer:
    """A fresh observer, see `Observing`."""
    match kind:
        case ObserverKind.MINMAX:
            return MinMax()
        case ObserverKind.PERCENTILE:
            return Percentile(percentile)
        case ObserverKind.ENTROPY:
            return Entropy(symmetric)
        case ObserverKind.MSE:
            return Mse(symmetric)
