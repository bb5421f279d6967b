"""Read, verify and predict from 1,000 to 100,000 nodes, and the time of one rewrite; each size in a process of its own.

python benchmarks/ir/scale.py [--nodes 1000 3000 10000 30000 100000] [--plot docs/figures/ir-scale.svg]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parent))  # helpers beside this file

import synthetic

REWRITES = 300
SHAPES = ("flat", "modules")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--plot", type=Path, help="an .svg or .png; needs matplotlib")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(options.one[0], int(options.one[1]))))
        return
    print(
        f"{'tree':<9}{'nodes':>8}{'read s':>9}{'verify s':>10}{'predict s':>11}{'sum s':>8}{'MB':>7}"
        f"{'µs a rewrite':>14}"
    )
    rows = [_row(shape, nodes) for shape in SHAPES for nodes in options.nodes]
    if options.plot:
        _plot(rows, options.plot)


def _row(shape: str, nodes: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", shape, str(nodes)]
    row: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    total = row["read_s"] + row["verify_s"] + row["predict_s"]
    print(
        f"{shape:<9}{nodes:>8}{row['read_s']:>9.2f}{row['verify_s']:>10.2f}{row['predict_s']:>11.2f}{total:>8.2f}"
        f"{row['grown_mb']:>7.0f}{1e6 * row['rewrite_s']:>14.0f}",
        flush=True,
    )
    return {**row, "shape": shape, "nodes": nodes}


def _one(shape: str, nodes: int) -> dict[str, float]:
    """Resident memory counts from the imports on; the file is written by a process of its own, which it leaves out."""
    from eopt.ir import onnx_io
    from eopt.ir.verify import verify
    from eopt.tools.predict import predict_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        code = (
            f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import synthetic; "
            f"model = synthetic.blocks({nodes}, scoped={shape == 'modules'}); "
            f"open({str(path)!r}, 'wb').write(model.SerializeToString())"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        small = Path(folder) / "small.onnx"
        small.write_bytes(synthetic.blocks(10).SerializeToString())
        predict_model(onnx_io.read(small), "nvidia-l4", batch=8)  # imports what is lazy
        start_mb, marks = _peak_mb(), [time.perf_counter()]
        model = onnx_io.read(path)
        marks.append(time.perf_counter())
        verify(model)
        marks.append(time.perf_counter())
        predict_model(model, "nvidia-l4", batch=8)
        marks.append(time.perf_counter())
        grown_mb = _peak_mb() - start_mb
    read_s, verify_s, predict_s = (after - before for before, after in pairwise(marks))
    spent = {"read_s": read_s, "verify_s": verify_s, "predict_s": predict_s, "grown_mb": grown_mb}
    return {**spent, "rewrite_s": _rewrites(model)}


def _rewrites(model: Any) -> float:
    """Median time to replace one operator by another, each rewrite upon the model the last one left."""
    ops = [op for op in model.leaves() if op.op == "Tanh"]
    chosen = Random(0).sample(ops, min(REWRITES, len(ops)))
    times = []
    for op in chosen:
        new = replace(op, op="Sigmoid", uid=0, origin=frozenset())
        began = time.perf_counter()
        model = model.replace([op], [new])
        times.append(time.perf_counter() - began)
    return median(times)


def _peak_mb() -> float:
    """Of this program: `ru_maxrss` begins with that of the process it was forked from."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1e3


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "eopt"  # the same file from the same figures
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    panels = (("seconds to read, verify and predict", _seconds),
              ("MB above the interpreter", lambda row: row["grown_mb"]),
              ("µs for one rewrite", lambda row: 1e6 * row["rewrite_s"]))  # fmt: skip
    for axis, (title, figure_of) in zip(axes, panels, strict=True):
        for shape in SHAPES:
            own = [row for row in rows if row["shape"] == shape]
            axis.loglog([row["nodes"] for row in own], [figure_of(row) for row in own], marker="o", label=shape)
        first = next(row for row in rows if row["shape"] == SHAPES[0])
        sizes = sorted({row["nodes"] for row in rows})
        linear = [figure_of(first) * nodes / first["nodes"] for nodes in sizes]
        axis.loglog(sizes, linear, color="0.6", linestyle=":", label="linear")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("nodes")
    axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _seconds(row: dict[str, Any]) -> float:
    return float(row["read_s"] + row["verify_s"] + row["predict_s"])


if __name__ == "__main__":
    main()
