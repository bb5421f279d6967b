"""Cost queries in bulk: the array and JSON Lines service behind `eopt query`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from eopt.backends import executor as executors
from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel import intervals
from eopt.costmodel.costs import weaker
from eopt.costmodel.learned import Learned, settled
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Basis, Cost, CostModel, Kernel, Unknown
from eopt.costmodel.records import MAX_EXTENT, record
from eopt.costmodel.table import Table, table
from eopt.ir.errors import InputError
from eopt.ir.types import DType

Array = np.ndarray[Any, Any]
Row = Mapping[str, Any]
FIGURES = ("latency_s", "latency_s_lo", "latency_s_hi", "energy_j", "energy_j_lo", "energy_j_hi")
NOTHING = dict.fromkeys((*FIGURES, "power_w"))
BLOCK = 4096  # rows the network sees at once: what its layers compute then stays in the cache of a core
# The libraries that the measurements of a type were made with: wide floats with torch, all others with vLLM.
MEASURED_WITH = {"float32": "torch", "float64": "torch"}
SERVING = "vllm"


@dataclass(frozen=True)
class Figures:
    """Of each kernel: `FIGURES` in seconds and joules (NaN: unknown), where they come from, and what was assumed."""

    values: Array
    basis: list[Basis]
    reasons: list[tuple[str, ...]]

    @property
    def known(self) -> list[bool]:
        """Which kernels have figures."""
        return [basis is not Basis.UNKNOWN for basis in self.basis]


def answer(
    rows: Sequence[Row], target: Target, executor: str | None, model: CostModel, first_line: int = 1
) -> list[dict[str, Any]]:
    """The same objects with the cost of one execution, in order; what cannot be priced is null, with reasons.

    Args:
        executor: None asks the network about what a type was measured with, and the prior about the target's default.
        first_line: number of the first row, for errors.

    Raises:
        InputError: a malformed query, by its line.
        UsageError: no such executor.
    """
    asked = [_asked(row, line) for line, row in enumerate(rows, first_line)]
    counts = [0 if isinstance(found, Unknown) else len(found) for found in asked]
    kernels = [kernel for found in asked if not isinstance(found, Unknown) for kernel in found]
    engines = [
        executor or engine_of(row["dtype"]) for row, count in zip(rows, counts, strict=True) for _ in range(count)
    ]
    default = executors.load(executor) if executor else executors.default_for(target)
    figures = estimate(kernels, engines, target, default, model, said=executor is not None)
    return list(_answers(rows, asked, counts, figures, scope(target)))


def total(rows: Sequence[Row], answers: Sequence[Row]) -> dict[str, Any]:
    """The whole list executed back to back, each row `count` times; see `Total`."""
    whole = Total()
    whole.add(rows, answers)
    return whole.to_dict()


@dataclass
class Total:
    """Sums over answers that come in parts. Errors of one model point the same way, so bounds add up like the figures.

    Attributes:
        sums: by figure, of what is known.
        unknown: executions that could not be priced.
    """

    sums: list[float] = field(default_factory=lambda: [0.0] * len(FIGURES))
    unknown: int = 0
    scope: str | None = None
    basis: Basis = Basis.MEASURED

    def add(self, rows: Sequence[Row], answers: Sequence[Row]) -> None:
        """Take in rows with their answers."""
        for row, found in zip(rows, answers, strict=True):
            count = count_of(row)
            if found["energy_j"] is None:  # a latency alone may be measured
                self.unknown += count
                continue
            self.scope, self.basis = found["energy_scope"], weaker(self.basis, found["basis"])
            for place, name in enumerate(FIGURES):
                self.sums[place] += count * found[name]

    def to_dict(self) -> dict[str, Any]:
        """As the last line of `eopt query --total`; nulls where nothing is known."""
        figures: dict[str, Any] = dict(zip(FIGURES, self.sums, strict=True))
        power_w = self.sums[3] / self.sums[0] if self.scope else None
        return {
            "op": "Total",
            **(figures if self.scope else NOTHING),
            "power_w": power_w,
            "energy_scope": self.scope,
            "basis": str(self.basis if self.scope else Basis.UNKNOWN),
            "reasons": [f"executions without a figure: {self.unknown}"] if self.unknown else [],
            "unknown_count": self.unknown,
        }


@lru_cache(maxsize=1 << 10)
def engine_of(dtype: str) -> str:
    """Name of the executor the network is asked about where nobody said one.

    Raises:
        UsageError: no such type.
    """
    return MEASURED_WITH.get(DType.parse(dtype), SERVING)


def scope(target: Target) -> str:
    """What the joules are drawn by."""
    return "package" if target.kind == "cpu" else "board"


def estimate(
    kernels: Sequence[Kernel],
    engines: Sequence[str],
    target: Target,
    default: Executor,
    model: CostModel,
    said: bool = True,
) -> Figures:
    """Every kernel; those that a network covers in few passes, the others by the physics prior.

    A model that is no network answers for all of them.

    Args:
        engines: by kernel, the name of the executor the network is asked about.
        default: the executor the prior is asked about.
        said: somebody chose the engines; else intervals cover what engines differ by.
    """
    figures = _unknown(len(kernels))
    covered = _covered(kernels, target, default, model) if isinstance(model, Learned) else [False] * len(kernels)
    by_engine: dict[str, list[int]] = {}
    for place, name in enumerate(engines):
        by_engine.setdefault(name if covered[place] else "", []).append(place)
    rest = by_engine.pop("", [])
    other = Prior() if isinstance(model, Learned) else model
    for place, cost in zip(rest, other.query_many([kernels[place] for place in rest], target, default), strict=True):
        _note(figures, place, cost)
    for name, places in by_engine.items():
        engine = executors.load(name)
        assert isinstance(model, Learned)
        for start in range(0, len(places), BLOCK):
            block = places[start : start + BLOCK]
            rows = table([settled(kernels[place], engine) for place in block])
            _predict(rows, block, name, target, model, figures, said)
    return figures


def in_model(kernels: Sequence[Kernel], target: Target, executor: Executor, model: CostModel) -> Figures:
    """Every kernel as it follows others in a model that the executor runs; see `CostModel.query_many`."""
    figures = _unknown(len(kernels))
    for place, cost in enumerate(model.query_many(kernels, target, executor)):
        _note(figures, place, cost)
    return figures


def _unknown(count: int) -> Figures:
    return Figures(np.full((count, len(FIGURES)), np.nan), [Basis.UNKNOWN] * count, [()] * count)


def _covered(kernels: Sequence[Kernel], target: Target, default: Executor, model: Learned) -> list[bool]:
    """Which kernels the network answers for; kernels of one family and type are alike in that."""
    known: dict[tuple[Any, ...], bool] = {}
    found = []
    for kernel in kernels:
        kind = (kernel.name, kernel.gemm and kernel.gemm[1] == 1, *[(unit, dtype) for unit, dtype, _ in kernel.flops])
        if kind not in known:
            runs = isinstance(Prior().query(kernel, target, default), Cost)
            known[kind] = runs and model.covers(kernel, target)
        found.append(known[kind])
    return found


def _predict(
    rows: Table, places: list[int], engine: str, target: Target, model: Learned, figures: Figures, said: bool
) -> None:
    found = model.predict(rows, target, engine)
    more = 0.0 if said else intervals.unsaid(rows.scale)
    latency, energy = np.exp(found.latency_spread + more), np.exp(found.energy_spread + more)
    figures.values[places] = np.stack(
        [
            found.latency_s, found.latency_s / latency, found.latency_s * latency,
            found.energy_j, found.energy_j / energy, found.energy_j * energy,
        ], axis=1,
    )  # fmt: skip
    basis, reasons = model.basis(target)
    for place in places:
        figures.basis[place], figures.reasons[place] = basis, reasons


def _note(figures: Figures, place: int, cost: Cost | Unknown) -> None:
    figures.reasons[place] = cost.reasons
    if isinstance(cost, Cost):
        spans = (cost.latency_s, cost.energy_j)
        figures.values[place] = [bound for span in spans for bound in (span.mid, span.lo, span.hi)]
        figures.basis[place] = cost.basis


def _asked(row: Row, line: int) -> tuple[Kernel, ...] | Unknown:
    try:
        count_of(row)
        return record(row)
    except InputError as error:
        raise InputError(f"line {line}: {error}") from None


def count_of(row: Row) -> int:
    """How often a query is executed.

    Raises:
        InputError: no positive integer.
    """
    count = row.get("count")
    if count is None:
        return 1
    if type(count) is not int or not 0 < count < MAX_EXTENT:
        raise InputError(f"count: {str(count)[:60]} is no positive integer")
    return count


def _answers(
    rows: Sequence[Row], asked: Sequence[tuple[Kernel, ...] | Unknown], counts: list[int], figures: Figures, scope: str
) -> Iterator[dict[str, Any]]:
    """The kernels of an operator run one after the other."""
    sums = np.zeros((len(rows), len(FIGURES)))
    np.add.at(sums, np.repeat(np.arange(len(rows)), counts), figures.values)
    place = 0
    for row, found, (latency_s, low_s, high_s, energy_j, low_j, high_j) in zip(rows, asked, sums.tolist(), strict=True):
        if isinstance(found, Unknown):
            basis, reasons = Basis.UNKNOWN, found.reasons
        else:
            basis, reasons = _common(figures, place, place + len(found))
            place += len(found)
        if basis is Basis.UNKNOWN:
            yield {**row, **NOTHING, "energy_scope": scope, "basis": basis, "reasons": list(reasons)}
            continue
        yield {
            **row,
            "latency_s": latency_s,
            "latency_s_lo": low_s,
            "latency_s_hi": high_s,
            "energy_j": energy_j,
            "energy_j_lo": low_j,
            "energy_j_hi": high_j,
            "power_w": energy_j / latency_s,
            "energy_scope": scope,
            "basis": basis,
            "reasons": list(reasons),
        }


def _common(figures: Figures, start: int, end: int) -> tuple[Basis, tuple[str, ...]]:
    basis, reasons = figures.basis[start], figures.reasons[start]
    for place in range(start + 1, end):
        basis = weaker(basis, figures.basis[place])
        reasons = tuple(dict.fromkeys((*reasons, *figures.reasons[place])))
    return basis, reasons
