"""Calibrate this machine through an executor: minutes, errors on operators not learned from, and whole models.

python benchmarks/measuring/calibration.py [--executor torch] [--ops 60] [--tune N] [--seeds 0 1 2] [--minilm FILE]

Whole models are not part of any calibration. They are measured as a user runs them, one call of one session.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import eopt
from eopt.backends.harness import bench
from eopt.backends.harness.base import Timing, Workload
from eopt.costmodel.learned import current
from eopt.costmodel.tree import Situation, bindings_for, price
from eopt.ir import onnx_out
from eopt.ir.model import Model
from eopt.ir.specialize import specialize
from eopt.tools.calibrate import calibrate
from eopt.tools.measuring import setup_of, store_of
from eopt.tools.situation import cost_model_of, hardware

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", default="onnxruntime")
    parser.add_argument("--ops", type=int, default=60)
    parser.add_argument("--tune", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minilm", type=Path, help="all-MiniLM-L6-v2 as ONNX (tests/models/export.py)")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    for seed in options.seeds:
        start = perf_counter()
        outcome = calibrate(
            "auto", options.executor, ops=options.ops, tune=options.tune, cache=options.cache, seed=seed
        )
        unseen = outcome.calibration.unseen
        print(json.dumps({"seed": seed, "minutes": round((perf_counter() - start) / 60, 2), **unseen}), flush=True)
        for row in wholes(options):
            print(json.dumps(row), flush=True)


def wholes(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measured and predicted seconds of each model."""
    target, executor = hardware("auto", options.executor)
    setup, store = setup_of(target, executor, options.tune, None), store_of(options.cache, target)
    for name, model, extents in _models(options.minilm):
        bound = bindings_for(model, 1, extents)
        proto = onnx_out.to_proto(specialize(model, bound))
        workload = Workload(name, proto.SerializeToString(), lone=False)
        (timing,) = bench.measure([workload], setup, store)
        if not isinstance(timing, Timing):
            yield {"model": name, "unknown": timing.reasons}
            continue
        after, before = (
            price(model, Situation(target, executor, bound, cost_model)).latency_s.mid
            for cost_model in (cost_model_of(None, target, executor), current())
        )
        errors = {"error": after / timing.latency_s - 1, "error_before": before / timing.latency_s - 1}
        yield {"model": name, "measured_s": timing.latency_s, "predicted_s": after, **errors}


def _models(minilm: Path | None) -> Iterator[tuple[str, Model, dict[str, int]]]:
    for name in ("cnn", "vit"):
        yield name, eopt.read(ROOT / "examples" / name / "model.onnx"), {}
    if minilm is not None:
        yield "minilm", eopt.read(minilm), {"sequence": 128}


if __name__ == "__main__":
    main()
