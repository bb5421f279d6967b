"""Cost queries in bulk: the array and JSON Lines service behind `eopt query`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eopt.backends import executor as executors
from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel.learned import Learned, settled
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Basis, Cost, CostModel, Kernel, Unknown
from eopt.costmodel.records import MAX_EXTENT, record
from eopt.costmodel.table import table
from eopt.ir.errors import InputError

Array = np.ndarray[Any, Any]
Row = Mapping[str, Any]
FIGURES = ("latency_s", "latency_s_lo", "latency_s_hi", "energy_j", "energy_j_lo", "energy_j_hi")
BLOCK = 2048  # rows the network sees at once: what its layers compute then stays in the cache of a core
# The libraries that the measurements of a type were made with: wide floats with torch, all others with vLLM.
MEASURED_WITH = {"float32": "torch", "float64": "torch"}
SERVING = "vllm"
_WEAKEST_LAST = (Basis.MEASURED, Basis.PREDICTED, Basis.EXTRAPOLATED, Basis.ESTIMATED, Basis.UNKNOWN)


@dataclass(frozen=True)
class Figures:
    """Of each kernel: `FIGURES` in seconds and joules, NaN where unknown, where they come from, and what was assumed."""

    values: Array
    basis: list[Basis]
    reasons: list[tuple[str, ...]]


def answer(
    rows: Sequence[Row], target: Target, executor: str | None, model: CostModel, first_line: int = 1
) -> list[dict[str, Any]]:
    """The same objects with the cost of one execution, in order; what cannot be priced is null, with reasons.

    Args:
        executor: None lets each type be run by what it was measured with, and the prior by the target's default.
        first_line: number of the first row, for errors.

    Raises:
        InputError: a malformed query, by its line.
        UsageError: no such executor.
    """
    asked = [_kernels(row, line) for line, row in enumerate(rows, first_line)]
    kernels = [kernel for found in asked if not isinstance(found, Unknown) for kernel in found]
    engines = [
        executor or engine_of(str(row["dtype"]))
        for row, found in zip(rows, asked, strict=True)
        for _ in (() if isinstance(found, Unknown) else found)
    ]
    default = executors.load(executor) if executor else executors.default_for(target)
    figures = estimate(kernels, engines, target, default, model)
    scope = "package" if target.kind == "cpu" else "board"
    return list(_joined(rows, asked, figures, scope))


def engine_of(dtype: str) -> str:
    """Name of the executor the network is asked about where nobody said one."""
    return MEASURED_WITH.get(dtype, SERVING)


def estimate(
    kernels: Sequence[Kernel], engines: Sequence[str], target: Target, default: Executor, model: CostModel
) -> Figures:
    """Every kernel, those that the network covers in few passes.

    Args:
        engines: by kernel, the name of the executor the network is asked about.
        default: the executor the physics prior, which answers for the rest, is asked about.
    """
    figures = Figures(np.full((len(kernels), 6), np.nan), [Basis.UNKNOWN] * len(kernels), [()] * len(kernels))
    open_rows = _refused(kernels, target, default, figures)
    learned = isinstance(model, Learned) and bool(open_rows)
    covered = _learned(kernels, engines, open_rows, target, model, figures) if learned else set[int]()
    for row in open_rows:
        cost = Unknown(()) if row in covered else Prior().query(kernels[row], target, default)
        if isinstance(cost, Cost):
            spans = (cost.latency_s, cost.energy_j)
            figures.values[row] = [bound for span in spans for bound in (span.mid, span.lo, span.hi)]
            figures.basis[row], figures.reasons[row] = cost.basis, cost.reasons
    return figures
