"""Peak resident memory and time of weight-only int4 on 1.1 billion float32 weights in TinyLlama's shapes.

python benchmarks/quant/memory.py [--layers 22] [--form nbits] [--folder DIR]

The model is written one tensor at a time. A child process reads it, quantises its products in groups of 32, and writes
the result. What has no weights is left out of attention: queries are multiplied with keys, and values added.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

HIDDEN, INTERMEDIATE, VOCABULARY, LAYERS = 2048, 5632, 32000, 22  # Zhang et al. 2024, arXiv:2401.02385
HEADS, KEY_HEADS = 32, 4
GROUP = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--form", default="nbits", choices=["qdq", "nbits"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        quantise(options.child, options.form)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "model.onnx"
        weights = write(path, options.layers)
        print(f"{weights / 1e9:.2f} billion weights, {4 * weights / 1e9:.2f} GB", flush=True)
        command = [sys.executable, __file__, "--form", options.form, "--child", str(path)]
        subprocess.run(command, check=True)
        written = sum(file.stat().st_size for file in Path(folder).glob("out.onnx*"))
        print(f"written: {written / 1e9:.2f} GB")


def quantise(path: Path, form: str) -> None:
    """Read, quantise, write, and print a row for each."""
    from eopt.ir import onnx_io, onnx_out
    from eopt.passes.quant import candidates, weight_only
    from eopt.passes.quant.blocks import Blocks

    print(f"{'step':<12}{'s':>8}{'peak GB':>10}")
    began = time.perf_counter()
    model = onnx_io.read(path)
    anchors, _ = candidates.find(model, ("MatMul",), ())
    began = _row("read", began)
    spec = Blocks(4, GROUP, signed_scales=form == "nbits")
    quantised = weight_only.quantise(model, anchors, spec, weight_only.Form(form))
    began = _row("quantise", began)
    onnx_out.write(quantised, path.with_name("out.onnx"))
    _row("write", began)


def _row(step: str, began: float) -> float:
    now = time.perf_counter()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{step:<12}{now - began:>8.1f}{peak_gb:>10.2f}", flush=True)
    return now


def write(path: Path, layers: int) -> int:
    """Write the model with its weights in `<name>.data`; the number of weights."""
    constants = {"eps": np.float32(1e-5), "axes": np.array([-1])}
    small = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    rng = np.random.default_rng(0)
    large: list[TensorProto] = []
    data = path.with_name(path.name + ".data")
    with data.open("wb") as file:
        for name, shape in _shapes(layers):
            array = rng.standard_normal(shape, np.float32) / np.float32(shape[0] ** 0.5)
            tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            file.write(array.data)
            large.append(tensor)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", VOCABULARY])
    graph = helper.make_graph(list(_nodes(layers)), "tinyllama", [ids], [logits], [*small, *large])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return sum(int(np.prod(tensor.dims)) for tensor in large)


def _shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight."""
    keys = HIDDEN * KEY_HEADS // HEADS
    wide, square, narrow = (HIDDEN, INTERMEDIATE), (HIDDEN, HIDDEN), (HIDDEN, keys)
    block = {"norm1": (HIDDEN,), "q": square, "k": narrow, "v": narrow, "o": square}
    block |= {"norm2": (HIDDEN,), "gate": wide, "up": wide, "down": wide[::-1]}
    yield "embedding", (VOCABULARY, HIDDEN)
    for layer in range(layers):
        yield from ((f"{layer}.{name}", shape) for name, shape in block.items())
    yield from (("norm", (HIDDEN,)), ("head", (HIDDEN, VOCABULARY)))


def _nodes(layers: int) -> Iterator[NodeProto]:
    node, repeats = helper.make_node, HEADS // KEY_HEADS
    yield node("Gather", ["embedding", "ids"], ["h0"])
    for n in range(layers):
        yield from _norm(f"h{2 * n}", f"{n}.norm1", f"{n}.x")
        yield from (node("MatMul", [f"{n}.x", f"{n}.{part}"], [f"{n}.{part}.y"]) for part in "qkv")
        yield from (node("Concat", [f"{n}.{part}.y"] * repeats, [f"{n}.{part}s"], axis=-1) for part in "kv")
        yield node("Mul", [f"{n}.q.y", f"{n}.ks"], [f"{n}.qk"])
        yield node("Add", [f"{n}.qk", f"{n}.vs"], [f"{n}.mixed"])
        yield node("MatMul", [f"{n}.mixed", f"{n}.o"], [f"{n}.o.y"])
        yield node("Add", [f"h{2 * n}", f"{n}.o.y"], [f"h{2 * n + 1}"])
        yield from _norm(f"h{2 * n + 1}", f"{n}.norm2", f"{n}.z")
        yield from (node("MatMul", [f"{n}.z", f"{n}.{part}"], [f"{n}.{part}.y"]) for part in ("gate", "up"))
        yield node("Sigmoid", [f"{n}.gate.y"], [f"{n}.open"])
        yield node("Mul", [f"{n}.open", f"{n}.up.y"], [f"{n}.gated"])
        yield node("MatMul", [f"{n}.gated", f"{n}.down"], [f"{n}.down.y"])
        yield node("Add", [f"h{2 * n + 1}", f"{n}.down.y"], [f"h{2 * n + 2}"])
    yield from _norm(f"h{2 * layers}", "norm", "last")
    yield node("MatMul", ["last", "head"], ["logits"])


def _norm(source: str, weight: str, result: str) -> Iterator[NodeProto]:
    """Root mean square normalisation."""
    node = helper.make_node
    yield node("Mul", [source, source], [f"{result}.square"])
    yield node("ReduceMean", [f"{result}.square", "axes"], [f"{result}.mean"])
    yield node("Add", [f"{result}.mean", "eps"], [f"{result}.safe"])
    yield node("Sqrt", [f"{result}.safe"], [f"{result}.root"])
    yield node("Div", [source, f"{result}.root"], [f"{result}.unit"])
    yield node("Mul", [f"{result}.unit", weight], [result])


if __name__ == "__main__":
    main()
