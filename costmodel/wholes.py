"""Models that were measured whole, beside the kernels they run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.backends.impute import completed
from eopt.backends.target import Target
from eopt.backends.throttle import ABOVE_BOOST, at
from eopt.costmodel import folds
from eopt.costmodel.datasets import table as tables
from eopt.costmodel.datasets import traced
from eopt.costmodel.datasets.base import QUERY
from eopt.costmodel.network import SIMILAR, Network
from eopt.costmodel.query import Kernel
from eopt.costmodel.records import row_kernels
from eopt.costmodel.samples import learnable
from eopt.costmodel.table import FAMILIES, Table, table
from eopt.costmodel.whole_head import Measured
from eopt.costmodel.whole_sum import Sums, stacked, summed

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
COLUMNS = ("source", "device", "workload", "phase", "dtype", "weight_dtype", "library", "batch", "attrs", "executor",
           "latency_s", "energy_j", "clock_hz", "power_cap_w")  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """The kernels of a model: each kind once, and how often it runs.

    Attributes:
        unknown: operators that have no kernels; the sum is a lower bound where there are any.
    """

    kernels: Table
    counts: Array
    unknown: int


@dataclass(frozen=True)
class Wholes:
    """Measurements of models whose operators are known.

    Attributes:
        frame: `COLUMNS`, the `generation` of the device, and `key` of the operators; joules and seconds are of one
            execution on one board.
        works: by source, key and phase.
    """

    frame: pd.DataFrame
    works: Mapping[tuple[str, str, str], Workload]

    def take(self, rows: Array) -> Wholes:
        """Some of the rows, by mask."""
        return Wholes(self.frame[rows].reset_index(drop=True), self.works)

    def work(self, row: Any) -> Workload:
        """The kernels of one row of the frame."""
        return self.works[row.source, row.key, row.phase]

    def measured(self) -> Measured:
        """What the head is fitted to; a device in a source is one group."""
        frame = self.frame
        groups = np.unique((frame["source"] + " " + frame["device"]).to_numpy(dtype=str), return_inverse=True)[1]
        return Measured(frame["latency_s"].to_numpy(float), frame["energy_j"].to_numpy(float), groups)


def read(out: Path) -> Wholes | None:
    """The whole models of a built table that have a list of operators; None where there are none.

    Raises:
        InputError: the table was not built.
    """
    sources = tables.traced(out)
    if not sources:
        return None
    found, _ = matched(tables.read(out, sources), tables.workloads(out, sources))
    return found if len(found.frame) else None


def workload(rows: pd.DataFrame, phases: tuple[str, ...] = ("forward",)) -> Workload:
    """The kernels of a workload's operators, of these phases."""
    counted: dict[Kernel, int] = {}
    unknown = 0
    for row in rows[rows["phase"].astype(str).isin(phases)].itertuples():
        kernels = row_kernels(*(getattr(row, name) for name in QUERY))
        unknown += not kernels
        for kernel in kernels:
            counted[kernel] = counted.get(kernel, 0) + int(row.count)
    return Workload(table(list(counted)), np.array(list(counted.values()), dtype=float), unknown)


def matched(rows: pd.DataFrame, operators: pd.DataFrame) -> tuple[Wholes, pd.DataFrame]:
    """Measured models with their operators, and how many rows of each source have none.

    Args:
        rows: of a built table; models on GPUs with a sheet are kept, but for distrusted rows.
        operators: of the workloads, as `datasets.table.workloads` reads them.
    """
    known = dict(iter(operators.groupby([operators["source"].astype(str), operators["workload"].astype(str)])))
    kept = rows[(rows["level"] == "model") & ~rows["noisy"].fillna(False).astype(bool)]
    kept = kept[
        kept["device"].astype(str).isin([name for name in kept["device"].astype(str).unique() if learnable(name)])
    ]
    frame = kept[list(COLUMNS)].astype(object).where(kept[list(COLUMNS)].notna(), None)
    frame["key"] = [_key(row, known) for row in frame.to_dict("records")]
    listed = frame["key"].notna()
    missing = frame[~listed].groupby("source").size().rename("rows").reset_index()
    frame = frame[listed].reset_index(drop=True)
    frame["generation"] = frame["device"].map({name: folds.generation(name) for name in frame["device"].unique()})
    for name in ("latency_s", "energy_j", "clock_hz", "power_cap_w"):
        frame[name] = frame[name].astype(float)
    frame["energy_j"] /= [_share(row) for row in frame.to_dict("records")]
    kinds = frame[["source", "key", "phase"]].drop_duplicates().itertuples(index=False)
    works = {tuple(kind): workload(known[kind[:2]], _phases(kind[2])) for kind in kinds}
    return Wholes(frame, works), missing


def _phases(phase: str) -> tuple[str, ...]:
    return ("forward", "backward") if phase == "training" else ("forward",)


def _key(row: Mapping[str, Any], known: Mapping[tuple[str, str], Any]) -> str | None:
    """Sources with a list for each workload name it so; the others by all that makes a difference."""
    for name in (row["workload"], traced.key({**row, "batch": row["batch"] and int(row["batch"])})):
        if (row["source"], name) in known:
            return str(name)
    return None


def _share(row: Mapping[str, Any]) -> float:
    """Joules of the unit that was measured over those of one execution on one board."""
    given = json.loads(row["attrs"] or "{}")
    return float(given.get("gpus", 1) / row["batch"]) if given.get("unit") == "token" else 1.0


def sums(network: Network, wholes: Wholes) -> Sums:
    """What the head reads of every row, from the sheets."""
    return stacked([_sums(network, wholes.work(row), row) for row in wholes.frame.itertuples()])


def covers(network: Network, wholes: Wholes) -> Array:
    """bool[n], rows that run no kernel of a family the network has not learned."""
    known = network.families()
    families = {key: {FAMILIES[code] for code in np.unique(work.kernels.family)} for key, work in wholes.works.items()}
    able = {key for key, found in families.items() if {SIMILAR.get(name, name) for name in found} <= known}
    return np.array([(row.source, row.key, row.phase) in able for row in wholes.frame.itertuples()], dtype=bool)


def _sums(network: Network, work: Workload, row: Any) -> Sums:
    training, library = row.phase == "training", row.library or ""
    return summed(network, work.kernels, work.counts, target_of(row), _hosted(row.executor), training, library)


@cache
def _hosted(engine: str | None) -> bool:
    """Engines without a sheet launch operators one by one."""
    return engine not in executors.names() or not executors.load(engine).captured


def target_of(row: Any) -> Target:
    """The device at the clock and under the cap a row was measured at; a clock above what boards do is the highest."""
    target = targets.load(row.device)
    if row.clock_hz == row.clock_hz:  # a number
        target = at(target, clock_hz=min(row.clock_hz, ABOVE_BOOST * completed(target).clock_boost_hz))
    return at(target, power_cap_w=row.power_cap_w) if row.power_cap_w == row.power_cap_w else target


def amounts(works: Sequence[Workload]) -> Array:
    """float64[n, 5] of what is executed, whatever the device: logarithms of operations of products, vector ones, bytes
    and kernels, and the share of products that are of 16 bits and less."""
    found = []
    for work in works:
        kernels, counts = work.kernels, work.counts
        narrow = kernels.dtype >= NARROW
        total = kernels.activation_bytes + kernels.weight_bytes
        matrix, vector, moved = (
            float(column @ counts) for column in (kernels.matrix_flops, kernels.vector_flops, total)
        )
        share = float((kernels.matrix_flops * narrow) @ counts) / matrix
        found.append([*np.log([matrix, vector, moved, counts.sum()]), share])
    return np.array(found)


NARROW = 3  # place of float16 in `table.TYPES`; wider types stand before it
