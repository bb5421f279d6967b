"""Print what runs here: one product in each format through the engines that are installed (docs/where-to-run.md).

python docs/generate_where_to_run.py
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from onnx import ModelProto, TensorProto, helper

from eopt.ir import onnx_io

Array = np.ndarray[Any, Any]
TESTS = runpy.run_path(str(Path(__file__).parents[1] / "tests/backends/test_compressed_tensors.py"))
K, N = TESTS["K"], TESTS["N"]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, K)).astype(np.float32)
LINE = 90


def cast(kind: int, dtype: Any) -> ModelProto:
    """A product in another floating type."""
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    return TESTS["graph"](nodes, {"w": RANDOM.normal(size=(K, N)).astype(dtype)})


def integer(columns: int) -> ModelProto:
    """QLinearMatMul, with one scale or one for each column."""
    constants = {"xs": np.float32(0.02), "xz": np.uint8(120), "w": RANDOM.integers(-127, 127, (K, N)).astype(np.int8)}
    shape = () if columns == 1 else (columns,)
    constants |= {"ws": np.full(shape, 0.01, np.float32), "wz": np.zeros(shape, np.int8)}
    constants |= {"ys": np.float32(0.1), "yz": np.uint8(128)}
    operands = ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("QLinearMatMul", operands, ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    return TESTS["graph"](nodes, constants)


def dynamic_integer() -> ModelProto:
    """DynamicQuantizeLinear and MatMulInteger."""
    weights = {"w": RANDOM.integers(-127, 127, (K, N)).astype(np.int8), "ws": np.full(N, 0.01, np.float32)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    return TESTS["graph"](nodes, weights)


FORMS = {
    "float16": cast(TensorProto.FLOAT16, np.float16),
    "bfloat16": cast(TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "int8 static QDQ": TESTS["int8"]("int8"),
    "uint8 static QDQ": TESTS["int8"]("uint8"),
    "dynamic QDQ": TESTS["int8"]("dynamic"),
    "MatMulInteger": dynamic_integer(),
    "QLinearMatMul": integer(1),
    "QLinearMatMul, scale per column": integer(N),
    "int8 weights per channel": TESTS["qdq"]("int8", 0, False),
    "int8 weights in groups": TESTS["qdq"]("int8", 32, False),
    "int4 weights in groups": TESTS["qdq"]("int4", 32, False),
    "uint4 weights with zero points": TESTS["qdq"]("uint4", 32, True),
    "MatMulNBits 4": TESTS["n_bits"](4, 32, False),
    "MatMulNBits 8": TESTS["n_bits"](8, 32, False),
    "float8 weights": TESTS["float8"](False),
    "float8 static QDQ": TESTS["float8"](True),
}


def onnxruntime(model: ModelProto, level: str = "", optimise: bool = True) -> Array:
    """The CPU execution provider; `level` is the accuracy of the products it fuses."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if level:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": X})[0])


def openvino(model: ModelProto, group: str = "") -> Array:
    """The CPU plugin; group 0 switches its rounding of activations off."""
    import openvino as ov

    hints = {"INFERENCE_PRECISION_HINT": "f32"} | ({"DYNAMIC_QUANTIZATION_GROUP_SIZE": group} if group else {})
    core = ov.Core()
    return np.asarray(core.compile_model(core.read_model(model.SerializeToString()), "CPU", hints)({"x": X})[0])


def tvm(model: ModelProto) -> Array:
    """TVM's own ONNX importer, for the CPU."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    machine = relax.VirtualMachine(relax.build(from_onnx(model), "llvm"), tvm.cpu())
    return np.asarray(machine["main"](tvm.runtime.tensor(X)).numpy())


def torch(model: ModelProto) -> Array:
    """eopt's lowering to torch."""
    from torch import from_numpy

    from eopt.backends.torch_fx.lowering import lower

    result = lower(onnx_io.from_proto(model))(from_numpy(X))
    return np.asarray((result[0] if isinstance(result, tuple | list) else result).detach().numpy())


ENGINES: dict[str, Callable[[ModelProto], Array]] = {
    "onnxruntime": onnxruntime,
    "… accuracy level 1": lambda model: onnxruntime(model, "1"),
    "OpenVINO": openvino,
    "… group size 0": lambda model: openvino(model, "0"),
    "TVM": tvm,
    "torch": torch,
}


def cell(run: Callable[[ModelProto], Array], model: ModelProto, expected: Array | None) -> str:
    """Distance of the result from onnxruntime's without optimisations, or the last line of the refusal."""
    try:
        found = run(model)
    except ImportError:
        return "not installed"
    except Exception as error:  # every engine has types of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return "no: " + lines[-1].replace("|", "/")[:LINE]
    if expected is None:
        return "runs"
    return f"{np.linalg.norm(found - expected) / np.linalg.norm(expected):.0e}"


def main() -> None:
    """Print the table."""
    sys.stdout.write(f"| format | {' | '.join(ENGINES)} |\n|---|{'---|' * len(ENGINES)}\n")
    for name, model in FORMS.items():
        try:
            expected = onnxruntime(model, optimise=False)
        except Exception:  # what it has no kernel for is compared with nothing
            expected = None
        cells = [cell(run, model, expected) for run in ENGINES.values()]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
