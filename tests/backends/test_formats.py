"""Formats of low precision: which one an operator computes in, who has kernels for it, and what that changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from eopt.backends import executor, formats, target
from eopt.backends.capability import Capability, read
from eopt.backends.fusion import fuse
from eopt.costmodel.plan import planned
from eopt.ir import onnx_io
from eopt.ir.types import DType

NUMPY = {"uint8": np.uint8, "int8": np.int8, "uint16": np.uint16, "int16": np.int16}
VNNI, OLD = "cpu-amd-epyc-9004", "cpu-amd-epyc-7742"


def built(body: str, shape: str = "N,8", opset: int = 21, **weights: np.ndarray):
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> g (float[{shape}] x) => (float y) {{ {body} }}'
    )
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return onnx_io.from_proto(proto)


def scalar(kind: str) -> np.ndarray:
    return np.zeros((), NUMPY[kind])


def product(activation: str = "uint8", weight: str = "int8", behind: str = "y = Identity(m)"):
    body = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, s, wz) m = MatMul(d, v) "
    given = {"s": np.float32(0.1).reshape(()), "z": scalar(activation), "wz": scalar(weight)}
    return built(body + behind, w=np.ones((8, 8), NUMPY[weight]), **given)


def dynamic():
    body = "q, s, z = DynamicQuantizeLinear(x) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, ws) "
    given = {"w": np.ones((8, 8), np.int8), "ws": np.float32(0.1).reshape(())}
    return built(body + "m = MatMul(d, v) y = Identity(m)", **given)


def weights_alone(op: str = "MatMul"):
    return built(f"v = DequantizeLinear(w, ws) m = {op}(x, v) y = Identity(m)", w=np.ones((8, 8), np.int8),
                 ws=np.float32(0.1).reshape(()))  # fmt: skip


def only(model, *types: str):
    (op,) = (op for op in model.leaves() if op.op in types)
    return op


@pytest.mark.parametrize(
    ("activation", "weight", "expected"),
    [
        ("uint8", "int8", "static-int8"),
        ("int8", "int8", "static-int8"),
        ("uint8", "uint8", "static-int8"),
        ("uint16", "int8", ""),  # a format of its own, which no table lists
        ("int16", "int16", ""),
    ],
)
def test_static_formats_are_told_by_what_is_stored(activation, weight, expected):
    model = product(activation, weight)
    assert formats.format_of(model, only(model, "MatMul")) == expected


def test_other_formats():
    cases = (
        (dynamic(), "dynamic-int8"),
        (weights_alone(), "weight-int8"),
        (built("y = MatMul(x, w)", w=np.ones((8, 8), "f")), ""),
    )
    assert [formats.format_of(model, only(model, "MatMul")) for model, _ in cases] == [
        expected for _, expected in cases
    ]


def test_an_activation_alone_is_no_format():
    """Floats times a dequantised activation: no kernel reads that."""
    model = built("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w)", w=np.ones((8, 8), "f"),
                  s=np.float32(0.1).reshape(()), z=scalar("uint8"))  # fmt: skip
    assert formats.format_of(model, only(model, "MatMul")) == ""


@pytest.mark.parametrize(
    ("op", "count", "expected"), [("Add", 2, "static-int8"), ("Add", 1, ""), ("Concat<axis=1>", 2, "static-int8")]
)
def test_elementwise_operators_need_all_their_operands(op, count, expected):
    names = ["d", "x"] if count == 1 else ["d", "d"]
    model = built(f"q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = {op}({', '.join(names)})",
                  s=np.float32(0.1).reshape(()), z=scalar("uint8"))  # fmt: skip
    assert formats.format_of(model, model.leaves()[-1]) == expected


# -- who has kernels


def test_rows_hold_where_the_target_has_what_they_need():
    rows = [{"format": "static-int8", "ops": ["MatMul"], "needs": ["vnni", "matrix"], "source": "a document"},
            {"format": "float8", "ops": ["MatMul"], "needs": ["matrix"], "source": "a document"},
            {"format": "weight-int4", "ops": ["MatMul"], "source": "a document"}]  # fmt: skip
    integer, float8, alone = read(rows)
    assert integer == Capability("static-int8", frozenset({"MatMul"}), ("vnni", "matrix"), "a document")
    hopper, ampere, cpu = (target.load(name) for name in ("nvidia-h100-sxm", "nvidia-a100-80gb-sxm", VNNI))
    assert [integer.on(device) for device in (hopper, ampere, cpu)] == [True, True, True]  # by sheet, or by feature
    assert [float8.on(device) for device in (hopper, ampere, cpu)] == [True, False, False]
    assert all(alone.on(device) for device in (hopper, ampere, cpu))


@pytest.mark.parametrize("name", executor.names())
def test_every_row_has_a_source_and_a_format_that_is_told(name):
    known = {"static-int8", "dynamic-int8", "float8", "weight-int8", "weight-int4"}
    for row in executor.load(name).capabilities:
        assert row.source and row.ops and row.format in known


@pytest.mark.parametrize(
    ("format", "op", "has"),
    [("static-int8", "Conv", True), ("dynamic-int8", "MatMul", True), ("dynamic-int8", "Conv", False),
     ("float8", "MatMul", False), ("weight-int4", "MatMul", True)],
)  # fmt: skip
def test_onnxruntime_on_a_processor_with_vnni(format, op, has):
    row = executor.load("onnxruntime").capability(format, op, target.load(VNNI))
    assert (row is not None) is has


# -- what that changes


def absorbed(model, engine: str, device: str) -> list[str]:
    found = fuse(model, executor.load(engine), target.load(device))
    return sorted(op.output for op in model.leaves() if op.uid in found.absorbed)


def test_a_kernel_reads_what_is_stored():
    assert absorbed(product(), "onnxruntime", VNNI) == ["d", "v"]
    assert absorbed(dynamic(), "onnxruntime", VNNI) == ["d", "v"]
    assert absorbed(weights_alone(), "onnxruntime", VNNI) == ["v"]


def test_without_a_kernel_everything_is_dequantised():
    assert absorbed(product(), "onnxruntime-cuda", "nvidia-h100-sxm") == []
    assert absorbed(dynamic(), "tensorrt", "nvidia-h100-sxm") == []
    assert absorbed(weights_alone("Gemm"), "onnxruntime", VNNI) == []  # MatMulNBits is made of MatMul alone
    assert absorbed(product("uint16", "int8"), "onnxruntime", VNNI) == []


def test_an_integer_product_takes_an_epilogue_as_one_on_floats():
    model = product(behind="r = Relu(m) y = Add(r, r)")
    first, *_ = fuse(model, executor.load("onnxruntime"), target.load(VNNI)).groups
    assert [op.op for op in first.members][:2] == ["MatMul", "Relu"]


@pytest.mark.parametrize(
    ("model", "computes"), [(product(), DType.INT8), (dynamic(), DType.INT8), (weights_alone(), None)]
)
def test_kernels_compute_in_the_type_of_their_format(model, computes):
    plan = planned(model, executor.load("onnxruntime"), target.load(VNNI), False)
    (kernel,) = (kernel for kernel in plan.kernels if kernel.members[0].op == "MatMul")
    assert kernel.computes == computes
    assert plan.operands["v"].bits == 8 and plan.operands["v"].is_weight
    assert plan.operands["d"].bits == 8 if computes else plan.operands["x"].bits == 32
