"""The same operators in five separate processes, and what measuring costs beyond the windows that are timed.

python benchmarks/measuring/repeat.py [--executor onnxruntime] [--operators 30]
"""

from __future__ import annotations

import argparse
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from eopt.backends.harness import bench
from eopt.backends.harness.base import Timing
from eopt.costmodel.learned import current
from eopt.tools.calibrate import candidates
from eopt.tools.measuring import setup_of, store_of
from eopt.tools.situation import hardware

PROCESSES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", default="onnxruntime")
    parser.add_argument("--operators", type=int, default=30)
    options = parser.parse_args()
    target, executor = hardware("auto", options.executor)
    setup = setup_of(target, executor, None, None)
    pool = candidates(target, executor, current(), 0, setup.executor != "tvm")[: options.operators]
    runs, taken_s, timed_s = [], 0.0, 0.0
    for _ in range(PROCESSES):
        with TemporaryDirectory() as cache:  # nothing may come from an earlier run
            start = perf_counter()
            found = bench.measure([one.workload for one in pool], setup, store_of(cache, target))
            taken_s += perf_counter() - start
        runs.append([one.latency_s if isinstance(one, Timing) else np.nan for one in found])
        timed_s += sum(
            one.latency_s * one.calls * one.repeats * workload.workload.copies
            for one, workload in zip(found, pool, strict=True)
            if isinstance(one, Timing)
        )
    seconds = np.array(runs)
    spread = np.nanstd(seconds, axis=0, ddof=1) / np.nanmean(seconds, axis=0)
    apart = np.nanmax(seconds, axis=0) / np.nanmin(seconds, axis=0) - 1
    print(f"{options.executor}: {len(pool)} operators, {PROCESSES} processes")
    for name, values in (("coefficient of variation", spread), ("largest over smallest, less 1", apart)):
        low, high = np.nanpercentile(values, [50, 90])
        print(f"  {name}: median {low:.1%}, 90th percentile {high:.1%}")
    print(f"  {taken_s / PROCESSES:.1f} s a run, {timed_s / taken_s:.0%} of them inside of timed windows")


if __name__ == "__main__":
    main()
