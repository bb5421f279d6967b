"""Models that were measured whole, predicted as the sum of their operators back to back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eopt.backends import target as targets
from eopt.backends.target import Target
from eopt.backends.throttle import at
from eopt.costmodel.datasets.base import QUERY
from eopt.costmodel.embedding import device
from eopt.costmodel.learned import BACK_TO_BACK
from eopt.costmodel.network import Network
from eopt.costmodel.query import Kernel
from eopt.costmodel.records import row_kernels
from eopt.costmodel.table import Table, table

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]


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
class Whole:
    """One prediction beside its measurement; seconds and joules of one execution."""

    latency_s: float
    energy_j: float
    power_given_w: float


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


def scores(network: Network, rows: pd.DataFrame, operators: pd.DataFrame, gone: Collection[str]) -> pd.DataFrame:
    """Models measured on devices that the network has not seen, beside what it says.

    Args:
        rows: of level `model`, with `device`, `workload`, `source` and what was measured.
        operators: of the workloads, as `table.workloads` reads them.
        gone: devices left out of the training.

    Returns:
        One row for each measurement: errors in percent of latency, of energy, and of energy given the latency.
    """
    import pandas as pd

    known = dict(iter(operators.groupby([operators["source"].astype(str), operators["workload"].astype(str)])))
    kept = rows[(rows["level"] == "model") & rows["device"].astype(str).isin(gone)]
    kept = kept[~kept["noisy"].fillna(False).astype(bool)]
    works: dict[tuple[str, str, str], Workload] = {}
    found = []
    for row in kept.itertuples():
        key = (str(row.source), str(row.workload))
        if key not in known:
            continue
        phase = str(row.phase)
        phases = ("forward", "backward") if phase == "training" else ("forward",)
        work = works.setdefault((*key, phase), workload(known[key], phases))
        found.append(_scored(network, work, row))
    return pd.DataFrame(found)


def _scored(network: Network, work: Workload, row: Any) -> dict[str, Any]:
    target = targets.load(str(row.device))
    if row.clock_hz == row.clock_hz:  # a number
        target = at(target, clock_hz=min(row.clock_hz, 1.05 * (target.peak_clock_hz or row.clock_hz)))
    whole = predict(network, work, target, BACK_TO_BACK, row.latency_s)
    given_j = whole.power_given_w * row.latency_s
    return {
        "source": row.source, "device": row.device, "workload": row.workload, "phase": row.phase,
        "clock_hz": row.clock_hz, "unknown": work.unknown,
        "latency": 100 * (whole.latency_s / row.latency_s - 1),
        "energy": 100 * (whole.energy_j / row.energy_j - 1), "energy given latency": 100 * (given_j / row.energy_j - 1),
    }  # fmt: skip


def predict(network: Network, work: Workload, target: Target, executor: str, latency_s: float | None = None) -> Whole:
    """A workload on a device from its sheet; with a measured latency its power as well.

    Kernels run back to back. The mean power is that of each kernel over its time; where the whole took longer or
    shorter than the sum, every kernel is taken to have been slower or faster by the same factor.
    """
    chip = device(target)
    found = network.answer(work.kernels, chip, executor, latent=False)
    seconds = float(found.latency_s @ work.counts)
    joules = float((found.latency_s * found.power_w) @ work.counts)
    given = latency_s / seconds if latency_s else 1.0
    watts = network.power(work.kernels, chip, executor, found.latency_s * given, latent=False)
    share = found.latency_s * work.counts / seconds
    return Whole(seconds, joules, float(watts @ share))
