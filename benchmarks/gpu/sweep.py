"""Measure the cases on this GPU until the minutes are over; the next call goes on.

python -m benchmarks.gpu.sweep [--minutes 9] [--device cuda|cpu] [--quick] [--only FAMILY ...] [--results FILE|FOLDER]
"""

from __future__ import annotations

import argparse
import gc
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu import measure, results
from benchmarks.gpu.board import Board
from benchmarks.gpu.cases import FAMILIES, models, ordered
from benchmarks.gpu.cases.base import Case, Missing
from benchmarks.gpu.device import Cpu, Cuda
from benchmarks.gpu.meter import QUICK, Budget, Meter

FOLDER = Path(__file__).resolve().parent / "results"
MOST_MINUTES = 10.0
CASE_S = 15.0  # what a case is taken to need before one has been measured
AGAIN = 75  # exit status: the device is unusable after an error, and a new process can go on (EX_TEMPFAIL)
NO_KERNEL = re.compile(
    r"not implemented|not.support|only support|unsupported|no (viable |available )?(kernel|backend)|could not run"
    r"|requires? (compute|cuda|sm)|cannot find a working triton",
    re.IGNORECASE,
)
POISONED = re.compile(r"illegal memory|CUDA error|device-side assert|unspecified launch", re.IGNORECASE)
Clock = Callable[[], float]


class Unusable(Exception):
    """An error after which the device answers nothing more in this process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sweep; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny shapes and windows: does everything run?")
    parser.add_argument("--only", nargs="+", choices=[family.__name__.rpartition(".")[2] for family in FAMILIES])
    parser.add_argument("--results", type=Path, default=FOLDER, help="a file, or the folder of the files")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= MOST_MINUTES:
        parser.error(f"--minutes: more than 0 and at most {MOST_MINUTES:g}")
    end_s = time.monotonic() + 60 * options.minutes
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU that this torch can use: nothing to measure", file=sys.stderr)
        return 0
    meter = _meter(torch, options.device, QUICK if options.quick else Budget())
    state = _state(torch, meter)
    path = options.results
    if path.suffix != ".jsonl":
        path = results.place(path, state["name"], torch.__version__, datetime.now(UTC).date().isoformat())
    wanted = [case for case in ordered(options.quick) if not options.only or case.family in options.only]
    return sweep(torch, wanted, meter, path, end_s, state)


def sweep(
    torch: Any, cases: Sequence[Case], meter: Meter, path: Path, end_s: float, state: dict[str, Any],
    clock: Clock = time.monotonic,
) -> int:  # fmt: skip
    """Measure what is not done until `end_s` of the clock; returns 0, or `AGAIN` where a new process has to go on.

    A case is begun only if the longest so far would still end in time.
    """
    done = results.done(path)
    left = [case for case in cases if case.name not in done]
    call = 1 + sum(line["kind"] == results.BOARD and line["when"] == "before" for line in results.read(path))
    meter.settle()
    results.append(path, {"kind": results.BOARD, "call": call, "when": "before", **state, **_now(meter)})
    longest_s, status, count = CASE_S if meter.budget.ramp_s else 0.0, 0, 0
    for case in left:
        begun_s = clock()
        if begun_s + longest_s > end_s:
            break
        results.append(path, {"kind": results.BEGUN, "case": case.name, "call": call})
        try:
            line = _line(torch, case, meter)
        except Unusable as error:
            line, status = {"kind": results.FAILED, "reason": str(error)}, AGAIN
        results.append(path, {"kind": line.pop("kind"), "case": case.name, "call": call, **_spelling(case), **line})
        count += 1
        longest_s = max(longest_s, clock() - begun_s)
        print(f"{case.name:<60} {_said(line)}", flush=True)
        if status:
            return status
    meter.settle()
    results.append(path, {"kind": results.BOARD, "call": call, "when": "after", **state, **_now(meter)})
    print(f"{path}: {count} cases more, {len(left) - count} left")
    return status


def _line(torch: Any, case: Case, meter: Meter) -> dict[str, Any]:
    """The figures of a case, or why there are none."""
    try:
        found = measure.measured(torch, case, meter)
        if case.level == "model":
            found |= models.predicted(case, meter.device.kind)
        return {"kind": results.MEASURED, **found}
    except Missing as error:
        return {"kind": results.SKIPPED, "reason": str(error)}
    except Exception as error:  # a kernel may raise anything, and the other cases go on
        reason = f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0][:200]}"
        if NO_KERNEL.search(reason):
            return {"kind": results.SKIPPED, "reason": reason}
        if POISONED.search(reason):
            raise Unusable(reason) from None
        return {"kind": results.FAILED, "reason": reason}
    finally:
        gc.collect()
        if meter.device.kind == "cuda":
            torch.cuda.empty_cache()


def _spelling(case: Case) -> dict[str, Any]:
    """The case as a row of the table of measurements."""
    empty: dict[str, Any] = {"weight_dtype": None, "math": None, "scale": None, "attrs": {}, "phase": "forward"}
    given = {name: value for name, value in case.query.items() if value not in ("", None)}
    return {
        "family": case.family, "level": case.level, **empty, **given, "executor": case.executor,
        "library": case.library or None, "variant": case.variant, "workload": f"micro:{case.family}",
    }  # fmt: skip


def _meter(torch: Any, kind: str, budget: Budget) -> Meter:
    return Meter(Cuda(torch), Board.of(torch), budget) if kind == "cuda" else Meter(Cpu(), Board(), budget)


def _state(torch: Any, meter: Meter) -> dict[str, Any]:
    """The machine: what does not change during a call."""
    found = meter.board.state()
    if meter.device.kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["name"] = found["name"] or properties.name
        found["memory_bytes"] = found["memory_bytes"] or properties.total_memory
        found |= {"cores": properties.multi_processor_count, "cuda": torch.version.cuda}
    return {
        **found, "name": found["name"] or "cpu", "l2_bytes": meter.device.l2_bytes, "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(), "python": platform.python_version(),
    }  # fmt: skip


def _now(meter: Meter) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat("T", "seconds"), "idle_w": meter.idle_w,
        "counter_period_s": meter.period_s, "sample": meter.board.sample(),
    }  # fmt: skip


def _said(line: dict[str, Any]) -> str:
    if "reason" in line:
        return str(line["reason"])
    joules = "" if line["energy_j"] is None else f" {line['energy_j']:.4g} J ±{100 * line['energy_spread']:.1f} %"
    return f"{1e6 * line['latency_s']:.1f} µs{joules} {line['launch']}"


if __name__ == "__main__":
    sys.exit(main())
