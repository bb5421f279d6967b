"""Operators measured through TVM's RPC on loopback beside the same ones measured in this process, in turns.

python benchmarks/measuring/rpc.py [--operators 24]
"""

from __future__ import annotations

import argparse

import numpy as np

from eopt.backends.base import Unknown
from eopt.backends.harness import timing
from eopt.backends.harness.base import Timing
from eopt.backends.harness.worker import feed_of
from eopt.backends.tvm import fleet
from eopt.backends.tvm.engine import TvmEngine
from eopt.backends.tvm.serve import local_fleet
from eopt.costmodel.learned import current
from eopt.tools.calibrate import candidates
from eopt.tools.measuring import setup_of
from eopt.tools.situation import hardware

TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", type=int, default=24)
    options = parser.parse_args()
    target, executor = hardware("auto", "tvm")
    setup = setup_of(target, executor, None, None)
    pool = [one.workload for one in candidates(target, executor, current(), 0, False)[: options.operators]]
    engine = TvmEngine(setup)
    here: dict[str, list[float]] = {one.key: [] for one in pool}
    there: dict[str, list[float]] = {one.key: [] for one in pool}
    with local_fleet(1, threads=setup.threads) as devices:
        for _ in range(TURNS):
            for one in pool:
                here[one.key].append(timing.time(engine.prepare(one, feed_of(one))).latency_s)
                for workload, result in fleet.measure([one], setup, devices.tracker, devices.key, feed_of):
                    found: Timing | Unknown = result if isinstance(result, Unknown) else result.timing
                    if isinstance(found, Timing):
                        there[workload.key].append(found.latency_s)
    ratios = np.array([np.min(there[one.key]) / np.min(here[one.key]) for one in pool if there[one.key]])
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    print(f"{len(ratios)} of {len(pool)} operators, best of {TURNS} turns each")
    print(f"through RPC over here: median {middle:.3f}, 10th percentile {low:.3f}, 90th {high:.3f}")


if __name__ == "__main__":
    main()
