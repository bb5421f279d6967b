"""Energy of operators on one measured machine, from shapes and a sheet; moved to another by its sheet.

    t = (launch^4 + (compute / u_c + memory / u_m)^4)^(1/4)          E = P_low t + e_flop F + e_byte B

for every kind of operator, with no coefficient below 0: more work never takes less. P_low is what the machine draws
while it waits for launches, its host included where the meter is at the wall. What is left over is a Gaussian process
on the logarithms of the shape, which falls back to the formula far from what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from eopt.backends.impute import completed
from eopt.backends.target import Target
from eopt.costmodel import table as tables
from eopt.costmodel.embedding import device
from eopt.costmodel.energy import process_scale
from eopt.costmodel.gaussian import alike, averaged
from eopt.costmodel.physics import smooth_maximum
from eopt.costmodel.query import Kernel

Array = np.ndarray[Any, Any]
SHARP = 4  # how hard the change is from waiting for the launch to working
REACHED = (0.75, 0.85)  # of the sheet's rate and bandwidth, expected beforehand (see `roofline.Achievable`)
# Standard deviations of the logarithms of those and of the launch, for which the least latency of all operators is
# expected: they decide only what the rows leave open, as whether a launch or few bytes make a small product slow.
EXPECTED_STD = (0.5, 0.5, 0.5)
TIME_NOISE = 0.1  # of the logarithm of one latency
LOW_QUANTILE = 0.01  # of the power of all operators: those that wait for the launch
ROW_BLOCK = 256  # threads PyTorch starts for every row of a normalisation on a GPU, needed or not
LENGTHS, NOISES, LEFT_OVER, TREND = (1.0, 2.0), (0.02, 0.1), (0.05, 0.3), (0.0, 0.2)
FACTOR_STD = (0.5, 0.2, 0.2, 0.2)  # of the logarithms of launch, slowdown, joules and low power of another machine
BUSY_SHARE = 0.3  # of TDP, drawn by a GPU at its clocks between kernels; for moving to another machine only


@dataclass(frozen=True)
class Work:
    """Operators as columns of length n.

    Attributes:
        seconds: float64[n, 2] of arithmetic and of memory at the sheet's peaks.
        amounts: float64[n, 2], operations and bytes.
        shape: float64[n, axes], logarithms of extents and amounts.
    """

    seconds: Array
    amounts: Array
    shape: Array

    def take(self, rows: Array) -> Work:
        """Some of the rows, by index or mask."""
        return Work(self.seconds[rows], self.amounts[rows], self.shape[rows])


def work(kernels: Sequence[Kernel], sheet: Target) -> Work:
    """What operators have to do on a device."""
    rows = tables.table(kernels)
    known = tables.quantities(rows, device(sheet))
    traffic, busy = known[:, 2], np.ones(len(rows))
    if sheet.kind == "gpu":  # of a CPU's work there are always enough pieces
        width = rows.problem[:, 2]
        padded = np.ceil(width / ROW_BLOCK) * ROW_BLOCK / width
        traffic = traffic * np.where(rows.family == tables.FAMILIES.index("norm"), padded, 1.0)
        busy = np.exp(known[:, 6])
    seconds = np.stack([(known[:, 0] + known[:, 1]) / busy, traffic / known[:, 3]], axis=1)
    amounts = np.stack([rows.matrix_flops + rows.vector_flops, traffic], axis=1)
    shape = np.log2(np.concatenate([np.maximum(rows.problem, 1.0), amounts + 1.0], axis=1))
    return Work(seconds, amounts, shape)


@dataclass(frozen=True)
class Kind:
    """Operators of one name on one machine.

    Attributes:
        slowdown: float64[2], seconds over those at the peaks, of arithmetic and of memory; launch_s: of one launch.
        joules: float64[2], of an operation and of a byte.
        shape: float64[n, axes] of the measured operators; left_over: float64[n], logarithm of measured over formula.
    """

    slowdown: Array
    launch_s: float
    joules: Array
    shape: Array
    left_over: Array

    def latency_s(self, asked: Work) -> Array:
        """float64[n]."""
        return np.asarray(smooth_maximum(np, asked.seconds @ self.slowdown, self.launch_s, SHARP))

    def formula_j(self, asked: Work, low_w: float) -> Array:
        """float64[n], without what is left over."""
        return np.asarray(low_w * self.latency_s(asked) + asked.amounts @ self.joules)

    def factor(self, shape: Array) -> Array:
        """float64[n] by which measured energy exceeds the formula at other shapes."""
        spread = np.maximum(self.shape.std(0), 1e-6)
        varied = self.shape.std(0) > 0
        own, asked = (((rows - self.shape.mean(0)) / spread)[:, varied] for rows in (self.shape, shape))
        candidates = [
            tuple(bump**2 * alike(rows, own, length) + trend**2 * rows @ own.T for rows in (own, asked))
            for length, bump, trend in product(LENGTHS, LEFT_OVER, TREND)
        ]
        return np.exp(averaged(candidates, NOISES, self.left_over))


@dataclass(frozen=True)
class Machine:
    """A machine with some operators measured. `low_w`: drawn while it waits for launches."""

    sheet: Target
    low_w: float
    kinds: dict[str, Kind]

    def energy_j(self, names: Array, asked: Work) -> Array:
        """float64[n] joules of one execution; NaN for names that were not measured.

        Args:
            names: n operators' names.
        """
        return self._formula_j(names, asked) * self._factor(names, asked)

    def _formula_j(self, names: Array, asked: Work) -> Array:
        return self._by_kind(names, lambda kind, rows: kind.formula_j(asked.take(rows), self.low_w))

    def _factor(self, names: Array, asked: Work) -> Array:
        return self._by_kind(names, lambda kind, rows: kind.factor(asked.shape[rows]))

    def _by_kind(self, names: Array, column: Callable[[Kind, Array], Array]) -> Array:
        result = np.full(len(names), np.nan)
        for name in np.unique(names):
            if name in self.kinds:
                result[names == name] = column(self.kinds[name], names == name)
        return result

    def scaled(self, launch: float, slowdown: float, joules: float, low: float) -> Machine:
        """With all coefficients of a sort times a factor."""
        kinds = {
            name: replace(
                kind, slowdown=slowdown * kind.slowdown, launch_s=launch * kind.launch_s, joules=joules * kind.joules
            )
            for name, kind in self.kinds.items()
        }
        return Machine(self.sheet, low * self.low_w, kinds)

    def adapt(self, names: Array, measured: Work, energy_j: Array) -> Machine:
        """Four factors learnt from a few readings, with a Gaussian prior of their logarithms around what the sheet
        says: host, rates, process and idle power move all kinds alike. No reading changes nothing."""
        from scipy.optimize import least_squares

        known = energy_j / self._factor(names, measured)

        def errors(state: Array) -> Array:
            found = self.scaled(*np.exp(state))._formula_j(names, measured)
            return np.append(np.log(found / known) / TIME_NOISE, state / FACTOR_STD)

        return self.scaled(*np.exp(least_squares(errors, np.zeros(len(FACTOR_STD))).x))

    def moved(self, sheet: Target) -> Machine:
        """The same host with another GPU: launches take as long, rates and bandwidth are those of its sheet, a
        difference in TDP adds its share while nothing runs, and an operation takes the energy that process and the
        square of the voltage, which follows the clock, allow."""
        old, new = completed(self.sheet), completed(sheet)
        clock = new.clock_boost_hz / old.clock_boost_hz
        cheaper = clock**2 * process_scale(new.process_nm) / process_scale(old.process_nm)
        kinds = {name: replace(kind, joules=kind.joules * [cheaper, 1.0]) for name, kind in self.kinds.items()}
        return Machine(sheet, self.low_w + BUSY_SHARE * (new.tdp_w - old.tdp_w), kinds)


def fit(names: Array, rows: Work, latency_s: Array, energy_j: Array, sheet: Target) -> Machine:
    """Coefficients of every kind of operator.

    Args:
        names: n operators' names.
        latency_s, energy_j: float64[n] of one execution, both measured.

    Raises:
        ValueError: a reading that is not positive.
    """
    if not ((latency_s > 0) & (energy_j > 0)).all():
        raise ValueError("operator energy: a reading is not positive; leave out what was not measured")
    low_w = float(np.quantile(energy_j / latency_s, LOW_QUANTILE))
    kinds = {}
    for name in np.unique(names):
        own = names == name
        kinds[str(name)] = _kind(rows.take(own), latency_s[own], energy_j[own], low_w, latency_s.min())
    return Machine(sheet, low_w, kinds)


def _kind(rows: Work, latency_s: Array, energy_j: Array, low_w: float, least_s: float) -> Kind:
    from scipy.optimize import least_squares, nnls

    expected = np.append(-np.log(np.array(REACHED)), np.log(least_s))

    def errors(state: Array) -> Array:
        found = smooth_maximum(np, rows.seconds @ np.exp(state[:2]), np.exp(state[2]), SHARP)
        return np.append(np.log(found / latency_s) / TIME_NOISE, (state - expected) / EXPECTED_STD)

    state = least_squares(errors, expected, loss="soft_l1").x
    kind = Kind(np.exp(state[:2]), float(np.exp(state[2])), np.zeros(2), rows.shape, np.zeros(len(latency_s)))
    above_j = energy_j - low_w * kind.latency_s(rows)
    joules = nnls(rows.amounts / energy_j[:, None], above_j / energy_j)[0]
    kind = replace(kind, joules=joules)
    return replace(kind, left_over=np.log(energy_j / kind.formula_j(rows, low_w)))
