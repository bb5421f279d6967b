"""Read and write one large model: eopt beside onnx, onnx-ir and onnxsim, each in processes of their own, in turn.

python benchmarks/ir/io.py [--megabytes 500] [--rounds 5] [--folder DIR]

The peak is resident memory above the interpreter with the library imported; of a mapped file it counts the pages that
were resident at once. onnxsim also simplifies, as it has no way just to read and write.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper, save_model

WIDTH = 1024
MAKERS = ("onnx", "eopt", "onnx-ir", "onnxsim")
FORMS = ("weights inside", "external data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(options.one[0], Path(options.one[1]), options.one[2] == FORMS[1])))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for form in FORMS:
            path = Path(folder) / form.split()[0] / "model.onnx"
            path.parent.mkdir()
            _make(path, options.megabytes, form == FORMS[1])
            _table(path, form, options.rounds)


def _make(path: Path, megabytes: int, external: bool) -> None:
    """A chain of MatMul and Relu over random float32 matrices."""
    generator = np.random.default_rng(0)
    count = max(1, megabytes * 10**6 // (4 * WIDTH * WIDTH))
    weights = [
        numpy_helper.from_array(generator.standard_normal((WIDTH, WIDTH), dtype=np.float32), f"w{i}")
        for i in range(count)
    ]
    nodes = []
    for i in range(count):
        nodes.append(helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"p{i}"]))
        nodes.append(helper.make_node("Relu", [f"p{i}"], [f"v{i + 1}"]))
    info = lambda name: helper.make_tensor_value_info(name, 1, ["batch", WIDTH])
    graph = helper.make_graph(nodes, "chain", [info("v0")], [info(f"v{count}")], weights)
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    save_model(model, path, save_as_external_data=external, location=path.name + ".data")


def _table(path: Path, form: str, rounds: int) -> None:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in MAKERS}
    for _ in range(rounds):
        for name in MAKERS:
            command = [sys.executable, __file__, "--one", name, str(path), form]
            runs[name].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    size = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
    print(f"{form}, {size:.0f} MB, median of {rounds}")
    print(f"{'':<10}{'read s':>9}{'write s':>9}{'both s':>9}{'× onnx':>9}{'peak MB':>10}{'× file':>9}")
    for name in MAKERS:
        read_s, write_s = (median(run[key] for run in runs[name]) for key in ("read_s", "write_s"))
        pairs = zip(runs[name], runs["onnx"], strict=True)
        ratio = median((own["read_s"] + own["write_s"]) / (peer["read_s"] + peer["write_s"]) for own, peer in pairs)
        peak = max(run["peak_mb"] for run in runs[name])
        spent = f"{read_s:>9.2f}{write_s:>9.2f}{read_s + write_s:>9.2f}{ratio:>9.2f}"
        print(f"{name:<10}{spent}{peak:>10.0f}{peak / size:>9.2f}")


def _one(name: str, path: Path, external: bool) -> dict[str, float]:
    read, write = _library(name, external)
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
        start_mb, began = _peak_mb(), time.perf_counter()
        model = read(path)
        halfway = time.perf_counter()
        write(model, Path(folder) / "model.onnx")
        ended = time.perf_counter()
    return {"read_s": halfway - began, "write_s": ended - halfway, "peak_mb": _peak_mb() - start_mb}


def _library(name: str, external: bool) -> tuple[Callable[[Path], Any], Callable[[Any, Path], None]]:
    """How a library reads and writes; the written form is that of the input."""
    import onnx

    options = {"save_as_external_data": True, "location": "model.onnx.data"} if external else {}

    def saved(model: Any, path: Path) -> None:
        onnx.save(model, path, **options)

    if name == "onnx":
        return onnx.load, saved
    if name == "onnxsim":
        import onnxsim

        return lambda path: onnxsim.simplify(onnx.load(path), perform_optimization=False)[0], saved
    if name == "onnx-ir":
        import onnx_ir

        return onnx_ir.load, lambda model, path: onnx_ir.save(
            model, path, external_data="model.onnx.data" if external else None
        )
    from eopt.ir import onnx_io, onnx_out

    shard = {"shard_bytes": 1 << 40} if external else {}
    return onnx_io.read, lambda model, path: onnx_out.write(model, path, **shard)


def _peak_mb() -> float:
    """Of this program: `ru_maxrss` begins with that of the process it was forked from."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1e3


if __name__ == "__main__":
    main()
