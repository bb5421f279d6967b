"""What exact placement is worth: predicted joules of everything in float, everything in int8, greedy and exact choice.

python benchmarks/quant/placement.py [MODEL ...] [--target NAME] [--executor NAME] [--share 1 0.5 0.2 ...]

For every model the noise of each operator is its weight's rounding error over the weight's power (a stand-in that ranks
operators without running the model some hundred times); `--share` are budgets as shares of the noise of all of int8.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import zoo
from variants import bindings

from eopt.backends.ort import OrtRunner
from eopt.costmodel import tree
from eopt.ir import onnx_io
from eopt.ir.model import Model
from eopt.passes.base import Context
from eopt.passes.pipeline import Pipeline
from eopt.passes.quant import choose
from eopt.passes.quant.bias import Means
from eopt.passes.quant.build import Builder
from eopt.passes.quant.calibrate import Calibration
from eopt.passes.quant.candidates import Anchor, find
from eopt.passes.quant.choices import Choices
from eopt.passes.quant.choose import greedy
from eopt.passes.quant.choose.problem import Assignment, chains, cost_j, noise, with_noise
from eopt.passes.quant.placement import clusters, possible_bridges
from eopt.passes.quant.scheme import Activation, Format, WeightType, scheme
from eopt.tools.situation import situation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=zoo.NAMES)
    parser.add_argument("--target", default="auto")
    parser.add_argument("--executor")
    parser.add_argument("--share", type=float, nargs="+", default=[1.0, 0.5, 0.2])
    options = parser.parse_args()
    print("| model | sites | solver | budget | all int8 | greedy | exact | s greedy | s exact |\n|" + "---|" * 9)
    for name in options.models:
        rows(name, options.target, options.executor, options.share)


def rows(name: str, target: str, executor: str | None, shares: list[float]) -> None:
    """Print a model's rows; joules are shares of those of everything in float."""
    case = zoo.case(name)
    model = onnx_io.read(case.model)
    where = situation(model, target, executor, None, bindings(model, case))
    assert where is not None
    model = Pipeline.parse("simplify,fuse").run(model, Context(OrtRunner())).model
    found, _ = find(model, ("Conv", "Gemm", "MatMul"), ())
    numbers = scheme(WeightType.INT8, Activation.AUTO, where.target, where.executor)
    bridges = possible_bridges(model, found, frozenset())
    tensors = {name for cluster in clusters(model, found, bridges=bridges) for name in cluster.tensors}
    seen = Calibration(dict.fromkeys(tensors, (-1.0, 1.0)), {})
    builder = Builder(model, seen, numbers, True, Means(model, ()))
    every = frozenset(anchor.op.uid for anchor in found)
    choices = Choices(builder, tuple(found), tuple(bridges), (Format.STATIC, Format.DYNAMIC), every)
    problem = with_noise(choices.problem(lambda other: tree.kernels_j(other, where)), _noise(model, found))
    floats = {site.key: site.options[0] for site in problem.sites}
    static = {site.key: (*site.options[1:2], site.options[0])[0] for site in problem.sites}
    whole_j = cost_j(problem, floats)
    for share in shares:
        budget = share * noise(static) * (1 + 1e-9)
        quick, quick_s = _timed(lambda: greedy.solve(problem, budget))  # noqa: B023
        exact, exact_s = _timed(lambda: choose.solve(problem, budget))  # noqa: B023
        costs = [cost_j(problem, static), *(cost_j(problem, chosen) for chosen in (quick, exact))]
        parts = " | ".join(f"{cost / whole_j:.4f}" for cost in costs)
        kind = "MILP" if chains(problem) is None else "DP"
        print(
            f"| {name} | {len(problem.sites)} | {kind} | {share:g} | {parts} | {quick_s:.2f} | {exact_s:.2f} |",
            flush=True,
        )


def _noise(model: Model, anchors: list[Anchor]) -> dict[tuple[int, str], float]:
    """Rounding of each weight to 8 bits per output channel, over its power; dynamic grids are a little finer."""
    found: dict[tuple[int, str], float] = {}
    for anchor in anchors:
        weight = model.constant(anchor.weight)
        assert weight is not None
        axes = tuple(axis for axis in range(weight.ndim) if axis != anchor.axis)
        step = np.abs(weight).max(axis=axes, keepdims=True) / 127
        error = float(np.mean(np.broadcast_to(step, weight.shape) ** 2 / 12) / max(np.mean(weight**2), 1e-30))
        found[anchor.op.uid, Format.STATIC] = error
        found[anchor.op.uid, Format.DYNAMIC] = 0.9 * error
    return found


def _timed(solve: object) -> tuple[Assignment, float]:
    start = time.perf_counter()
    found = solve()  # type: ignore[operator]
    assert found is not None
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main()
