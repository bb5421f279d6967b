"""Resident memory of simplify, fuse and predict on a synthetic model with external data, and of writing it in shards.

python benchmarks/ir/large.py [--gigabytes 8] [--folder DIR]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # helpers beside this file

import synthetic

WIDTH = 8192
LAYER_BYTES = WIDTH * WIDTH * 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "model.onnx"
        weight_bytes = synthetic.external(path, max(1, round(options.gigabytes * 2**30 / LAYER_BYTES)), WIDTH)
        print(f"{weight_bytes / 2**30:.1f} GiB of weights in external data")
        _measure(path)


def _measure(path: Path) -> None:
    start_mb = _peak_mb()
    print(f"{'step':<28}{'s':>8}{'peak MB above the interpreter':>32}")
    from eopt.ir import onnx_io, onnx_out
    from eopt.passes.base import Context
    from eopt.passes.pipeline import Pipeline
    from eopt.tools.predict import predict_model

    began = time.perf_counter()
    model = onnx_io.read(path)
    began = _row("read", began, start_mb)
    compiled = Pipeline.parse("simplify,fuse").run(model, Context(None)).model
    began = _row("simplify, fuse", began, start_mb)
    predict_model(compiled, "nvidia-h100-sxm", batch=8)
    began = _row("predict", began, start_mb)
    onnx_out.write(compiled, path.with_name("out.onnx"), shard_bytes=2**30)
    _row("write in shards of 1 GiB", began, start_mb)
    print(f"most: {_peak_mb() - start_mb:.0f} MB")


def _row(step: str, began: float, start_mb: float) -> float:
    now = time.perf_counter()
    print(f"{step:<28}{now - began:>8.2f}{_peak_mb() - start_mb:>32.0f}", flush=True)
    return now


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
