"""Quantised operators in TVM: eight bits in, sums of 32, and the numbers of onnxruntime within one step."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from tvm_models import onnxruntime, workload

from eopt.backends.harness.base import Setup
from eopt.ir.errors import InputError

pytestmark = pytest.mark.slow
random = np.random.default_rng(2)


def drawn(dtype, *shape):
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def small(*shape):
    """Weights of seven bits: onnxruntime on x86 without VNNI saturates sums of two 8-bit products."""
    return random.integers(-64, 64, shape, "int8")


def scalar(value, dtype="float32"):
    return np.array(value, dtype)


def matmul_integer(a="uint8", b="int8"):
    feed = {"a": drawn(a, 8, 64)}
    node = helper.make_node("MatMulInteger", ["a", "b", "za", "zb"], ["y"])
    zeros = {"za": scalar(3, a), "zb": scalar(2, b)}
    return workload([node], feed, {"y": "int32"}, b=small(64, 24) if b == "int8" else drawn(b, 64, 24), **zeros), feed


def conv_integer():
    feed = {"x": drawn("uint8", 1, 8, 9, 9)}
    node = helper.make_node("ConvInteger", ["x", "w", "zx"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])
    return workload([node], feed, {"y": "int32"}, w=small(6, 8, 3, 3), zx=scalar(100, "uint8")), feed


def qlinear_matmul(scales=0.01):
    feed = {"a": drawn("uint8", 8, 64)}
    node = helper.make_node("QLinearMatMul", ["a", "sa", "za", "b", "sb", "zb", "sy", "zy"], ["y"])
    constants = {
        "sa": scalar(0.02), "za": scalar(120, "uint8"), "b": small(64, 24), "sb": scalar(scales),
        "zb": np.zeros(np.shape(scales), "int8"), "sy": scalar(0.2), "zy": scalar(128, "uint8"),
    }  # fmt: skip
    return workload([node], feed, {"y": "uint8"}, **constants), feed


def qlinear_matmul_by_channel():
    return qlinear_matmul(random.uniform(0.005, 0.02, 24).astype("float32"))


def qlinear_conv():
    feed = {"x": drawn("uint8", 2, 8, 9, 9)}
    names = ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"]
    node = helper.make_node("QLinearConv", names, ["y"], pads=[1, 0, 1, 2], dilations=[1, 2])
    constants = {
        "sx": scalar(0.02), "zx": scalar(120, "uint8"), "w": small(6, 8, 3, 3),
        "sw": random.uniform(0.005, 0.02, 6).astype("float32"), "zw": np.zeros(6, "int8"), "sy": scalar(0.2),
        "zy": scalar(128, "uint8"), "b": random.integers(-3000, 3000, 6, "int32"),
    }  # fmt: skip
    return workload([node], feed, {"y": "uint8"}, **constants), feed


def qdq(op, shape, weights, axis, weight_dtype="int8", weight_zero=0, **attributes):
    feed = {"x": random.standard_normal(shape, np.float32)}
    zeros = np.full(weights[axis], weight_zero, weight_dtype)
    values = (small(*weights).astype("int16") + weight_zero).astype(weight_dtype)
    constants = {
        "sx": scalar(0.03), "zx": scalar(-5, "int8"), "w": values, "zw": zeros,
        "sw": random.uniform(0.001, 0.01, weights[axis]).astype("float32"), "sy": scalar(0.05), "zy": scalar(4, "int8"),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=axis),
        helper.make_node(op, ["xd", "wd"], ["t"], **attributes),
        helper.make_node("Relu", ["t"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "sy", "zy"], ["y"]),
    ]
    return workload(nodes, feed, {"y": "int8"}, **constants), feed


CASES = {
    "matmul_integer": matmul_integer,
    "matmul_integer_of_one_type": lambda: matmul_integer("int8"),
    "matmul_integer_with_unsigned_weights": lambda: matmul_integer("uint8", "uint8"),
    "conv_integer": conv_integer,
    "qlinear_matmul": qlinear_matmul,
    "qlinear_matmul_by_channel": qlinear_matmul_by_channel,
    "qlinear_conv": qlinear_conv,
    "qdq_matmul": lambda: qdq("MatMul", (2, 8, 64), (64, 24), 1),
    "qdq_gemm": lambda: qdq("Gemm", (8, 64), (24, 64), 0, transB=1),
    "qdq_conv": lambda: qdq("Conv", (1, 8, 9, 9), (6, 8, 3, 3), 0, pads=[1, 1, 1, 1]),
    "qdq_depthwise": lambda: qdq("Conv", (1, 8, 9, 9), (8, 1, 3, 3), 0, group=8),
    "qdq_unsigned_weights": lambda: qdq("MatMul", (8, 64), (64, 24), 1, "uint8", 128),
}


def products(wanted):
    """The lines of all kernels that add a product to a sum."""
    pytest.importorskip("tvm")
    from eopt.backends.tvm.lower import lowered, target_of

    text = "\n".join(kernel.script() for kernel in lowered(wanted, target_of({}, 1)).kernels.values())
    return [line.strip() for line in text.splitlines() if " + " in line and " * " in line and "] = " in line]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_are_those_of_onnxruntime_within_one_step(tmp_path, case):
    pytest.importorskip("tvm")
    from eopt.backends.tvm.engine import TvmEngine

    wanted, feed = case()
    given = TvmEngine(Setup("tvm", threads=1), folder=tmp_path).prepare(wanted, feed).outputs()["y"]
    expected = onnxruntime(wanted, feed)[0]
    assert given.dtype == expected.dtype
    exact = expected.dtype == np.int32
    assert np.abs(given.astype(np.int64) - expected.astype(np.int64)).max() <= (0 if exact else 1)
    assert len(np.unique(expected)) > 20, "a saturated case tests nothing"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_kernels_multiply_eight_bits_into_32(case):
    assert [line for line in products(case()[0]) if line.count('T.Cast("int32"') == 2]


def test_scales_along_the_reduced_axis_stay_in_float():
    wanted, _ = qdq("MatMul", (8, 64), (64, 24), 0)
    assert not [line for line in products(wanted) if line.count('T.Cast("int32"') == 2]


def test_a_bias_in_unknown_steps_is_named():
    pytest.importorskip("tvm")
    from eopt.backends.tvm.lower import lowered, target_of

    feed = {"x": drawn("uint8", 1, 8, 9, 9), "sx": scalar(0.5)}
    node = helper.make_node("QLinearConv", ["x", "sx", "z", "w", "s", "zw", "s", "z", "b"], ["y"], name="first")
    constants = {"w": small(6, 8, 3, 3), "s": scalar(0.1), "z": scalar(1, "uint8"), "zw": scalar(0, "int8")}
    wanted = workload([node], feed, {"y": "uint8"}, **constants, b=np.zeros(6, "int32"))
    with pytest.raises(InputError, match=r"node 'first' \(QLinearConv\): 'sx' must be a constant"):
        lowered(wanted, target_of({}, 1))
