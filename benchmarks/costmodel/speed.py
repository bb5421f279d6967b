"""Speed of cost queries on one core: arrays, JSON lines, and one whole model; the best of some rounds, shapes distinct.

python benchmarks/costmodel/speed.py [--target nvidia-h100-sxm] [--operators 50000] [--rounds 5]

`arrays` prices a table of kernels with the network. `lines` is `eopt query` on a file: parsing, shapes, kernels,
network and output. `model` prices examples/vit anew, as `eopt predict` does after loading. Both `lines` and `model` are
warm: the process has answered before, but has not met these shapes.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read on import of NumPy

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from immutables import Map

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.costmodel.learned import Learned
from eopt.costmodel.records import kernels_of, record
from eopt.costmodel.service import BLOCK, SERVING
from eopt.costmodel.table import table
from eopt.costmodel.tree import Situation, price
from eopt.tools import frontdoor
from eopt.tools.cli import main as eopt

VIT = Path(__file__).parents[2] / "examples/vit/model.onnx"
GOALS = {"arrays": "100000 operators/s", "lines": "20000 lines/s", "model": "50 ms"}
WARM = 2000  # queries before the clock starts
EXTENTS = (1, 1 << 13)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="nvidia-h100-sxm")
    parser.add_argument("--operators", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    queries = _queries(options.operators)
    measured = {
        "arrays": f"{options.operators / _arrays(queries, options.target, options.rounds):.0f} operators/s",
        "lines": f"{options.operators / _lines(queries, options.target, options.rounds):.0f} lines/s",
        "model": f"{1e3 * _model(options.target, options.rounds):.1f} ms",
    }
    for name, figure in measured.items():
        print(f"{name:<8}{figure:>20}   goal {GOALS[name]}")


def _queries(count: int) -> list[dict[str, Any]]:
    """What a transformer is made of, half of it products, each with a shape of its own."""
    rng = random.Random(0)
    draw = lambda: rng.randint(*EXTENTS)
    made: list[dict[str, Any]] = []
    for _ in range(count):
        rows, inner, columns = draw(), draw(), draw()
        op = rng.choice(("MatMul", "MatMul", "MatMul", "Gelu", "Softmax", "RMSNormalization"))
        inputs = [[8, rows, inner], [inner, columns]] if op == "MatMul" else [[rows, inner]]
        made.append({"op": op, "inputs": inputs, "dtype": rng.choice(("bfloat16", "float16", "float8_e4m3"))})
    return made


def _best(rounds: int, action: Callable[[], object]) -> float:
    """Seconds of the fastest round: others on the machine only ever slow it down."""
    taken = []
    for _ in range(rounds):
        kernels_of.cache_clear()
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _arrays(queries: list[dict[str, Any]], name: str, rounds: int) -> float:
    found = (record(query) for query in queries)
    rows = table([kernel for kernels in found if isinstance(kernels, tuple) for kernel in kernels])
    model, target = Learned.shipped(), targets.load(name)
    blocks = [rows.take(slice(start, start + BLOCK)) for start in range(0, len(rows), BLOCK)]
    return _best(rounds, lambda: [model.predict(block, target, SERVING) for block in blocks])


def _lines(queries: list[dict[str, Any]], name: str, rounds: int) -> float:
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        warm, path = Path(folder) / "warm.jsonl", Path(folder) / "queries.jsonl"
        for file, rows in ((warm, queries[:WARM]), (path, queries)):
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        eopt(["query", str(warm), "--target", name])
        return _best(rounds, lambda: eopt(["query", str(path), "--target", name]))


def _model(name: str, rounds: int) -> float:
    """Every round prices the model at a batch size of its own, as nothing is priced twice."""
    target, model, learned = targets.load(name), frontdoor.load(VIT), Learned.shipped()
    engine, sizes = executors.default_for(target), iter(range(1, rounds + 3))
    once = lambda: price(model, Situation(target, engine, Map({"batch": next(sizes)}), learned))
    once(), once()  # the plan of a model is made once
    return _best(rounds, once)


if __name__ == "__main__":
    main()
