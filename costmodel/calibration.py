"""Measurements of one device through one executor, kept where the other verbs find them.

A calibration holds what was measured, not what was fitted: whoever reads it fits anew, to the cost model of that day.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.executor import Executor
from eopt.backends.target import MAX_NAME, Target
from eopt.costmodel.adapt import adapted
from eopt.costmodel.calibrated import Calibrated, references
from eopt.costmodel.learned import Learned
from eopt.costmodel.query import Cost, CostModel, Kernel
from eopt.costmodel.residual import Residual, points
from eopt.ir.errors import InputError
from eopt.ir.onnx_out import atomic, made
from eopt.ir.ops import Unit
from eopt.ir.types import DType

FORMAT, MAX_BYTES, MAX_ROWS = 1, 16 << 20, 10_000
MOST = 1e30  # of operations or bytes
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measured:
    """One operator: its kernel, the seconds it took, and the coefficient of variation of the repeats."""

    kernel: Kernel
    latency_s: float
    cv: float


@dataclass(frozen=True)
class Calibration:
    """What was measured of a target through an executor.

    Attributes:
        model: what the device calls itself; another one under the same name asks for a calibration of its own.
        schedule, version: of the executor.
        date: ISO, of the measurement.
        rows: the operators it learns from.
        unseen: median errors `before` and `after` on `count` operators, of the `learned` others; all are in `rows`.
    """

    target: str
    model: str
    executor: str
    schedule: str
    version: str
    date: str
    rows: tuple[Measured, ...]
    unseen: dict[str, float]

    def apply(self, base: CostModel, target: Target, executor: Executor) -> CostModel:
        """The cost model corrected by this.

        A device that the network does not know moves in its embedding first; what no embedding says comes on top.
        """
        kernels, seconds = [row.kernel for row in self.rows], np.array([row.latency_s for row in self.rows])
        if isinstance(base, Learned):
            base = adapted(base, kernels, seconds, target, executor)
        residual = fit(base, kernels, seconds, np.array([row.cv for row in self.rows]), target, executor)
        schedule = f", {self.schedule}" if self.schedule else ""
        says = f"calibrated with {len(self.rows)} operators measured {self.date[:10]} ({executor.name}{schedule})"
        return Calibrated(base, residual, target.name, executor.name, says)


def fit(
    base: CostModel, kernels: Sequence[Kernel], seconds: Array, cv: Array, target: Target, executor: Executor
) -> Residual:
    """What measurements say beyond a cost model.

    Raises:
        InputError: it prices none of the kernels.
    """
    costs = base.query_many(kernels, target, executor)
    known = [place for place, cost in enumerate(costs) if isinstance(cost, Cost)]
    if not known:
        raise InputError(f"none of the measured operators can be priced on {target.name} with {executor.name}")
    asked = [kernels[place] for place in known]
    expected = references(asked, [cost for cost in costs if isinstance(cost, Cost)], target, executor)
    return Residual(points(asked, expected), np.log(seconds[known] / expected), cv[known])


def own_folder() -> Path:
    """Where calibrations are: `$EOPT_CALIBRATIONS`, else `~/.config/eopt/calibrations`."""
    named = os.environ.get("EOPT_CALIBRATIONS")
    return Path(named) if named else Path.home() / ".config/eopt/calibrations"


def keep(found: Calibration) -> Path:
    """Write a calibration over an older one of the same target, executor and schedule; returns where it is.

    Raises:
        OutputError: it cannot be written.
    """
    path = made(own_folder()) / f"{_stem(found.target, found.executor)}{found.schedule.replace(':', '')}.json"
    with atomic(path) as file:
        file.write(json.dumps({"format": FORMAT, **asdict(found)}, indent=1).encode())
    return path


def find(target: Target, executor: Executor) -> Calibration | None:
    """The latest calibration of a target and an executor; None where there is none for this device.

    Raises:
        InputError: a file that is no calibration.
    """
    paths = own_folder().glob(f"{_stem(target.name, executor.name)}*.json")
    found = [read(path) for path in sorted(paths)]
    wanted = (target.name, target.model, executor.name)
    fitting = [one for one in found if (one.target, one.model, one.executor) == wanted]
    return max(fitting, key=lambda one: one.date, default=None)


def _stem(target: str, executor: str) -> str:
    """What names of files begin with; targets may be called anything."""
    return f"{_UNSAFE.sub('_', target)[:MAX_NAME]}--{executor}--"


def read(path: Path) -> Calibration:
    """A calibration from its file.

    Raises:
        InputError: too large, damaged, or of another format.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes; that is no calibration")
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT or len(document["rows"]) > MAX_ROWS:
            raise InputError(f"{path}: of another format; run eopt calibrate again")
        rows = tuple(_measured(row) for row in document.pop("rows"))
        found = Calibration(**document, rows=rows)
        texts = (found.target, found.model, found.executor, found.schedule, found.version, found.date)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a text is none")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: no calibration ({type(error).__name__}: {error}); remove it") from None
    return found


def _measured(row: dict[str, Any]) -> Measured:
    latency_s, cv = float(row["latency_s"]), float(row["cv"])
    if not 0 < latency_s < inf or not 0 <= cv < inf:
        raise ValueError(f"{latency_s} s with a variation of {cv} is no measurement")
    return Measured(_kernel(**row["kernel"]), latency_s, cv)


def _kernel(
    *, name: str, scale: str, math: str, flops: Any, gemm: Any, activation_bytes: Any, weight_bytes: Any, **counts: Any
) -> Kernel:
    """A kernel whose fields are what they should be; strangers may have written the file."""
    if not all(isinstance(text, str) for text in (name, scale, math)):
        raise ValueError("a name is no text")
    work = tuple((Unit(unit), DType(dtype), _amount(amount)) for unit, dtype, amount in flops)
    problem = tuple(int(_amount(extent)) for extent in gemm) if gemm else None
    if problem is not None and len(problem) != 4:
        raise ValueError(f"a product of {len(problem)} extents")
    amounts = {"activation_bytes": _amount(activation_bytes), "weight_bytes": _amount(weight_bytes)}
    sizes = {field: int(_amount(count)) for field, count in counts.items()}
    return Kernel(name, work, gemm=problem, scale=scale, math=math, **amounts, **sizes)  # type: ignore[arg-type]


def _amount(value: Any) -> float:
    amount = float(value)
    if not 0 <= amount < MOST:
        raise ValueError(f"{amount} is no amount")
    return amount
