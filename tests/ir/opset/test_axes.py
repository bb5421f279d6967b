"""Axis maps are true: one position of a MAP class, permuted on every port that holds it, permutes the result.

Computed with onnx's own reference implementation, for every family that it has, else with onnxruntime. Every axis of
every port is in one class at most, and the members of a class agree on how many positions it has.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from eopt.ir.node import Attrs
from eopt.ir.ops import OpView, Role, Tensor, spec
from eopt.ir.types import DType

RNG = np.random.default_rng(0)


def f(*shape):
    return (RNG.random(shape) + 0.5).astype("f")


def i(*values):
    return np.array(values, dtype=np.int64)


def picks(high, *shape):
    return RNG.integers(0, high, shape)


def bytes_(*shape):
    return RNG.integers(0, 16, shape).astype(np.uint8)


MS = "com.microsoft"
EMBEDDED = [picks(9, 2, 3).astype(np.int32), None, f(9, 8), f(3, 8), None, f(8), f(8)]
LENGTHS = [np.array([2, 1], np.int32), np.array(3, np.int32)]
GROUPED = [f(2, 3, 32), f(2, 3, 16), f(2, 3, 16), None, None, *LENGTHS]
MASK = (RNG.random((1, 4, 5)) > 0.5).astype("f")[0]
CAUSAL = {"is_causal": 1}
PACKED = {"q_num_heads": 4, "kv_num_heads": 2}
# (operator, inputs, attributes, opset, named MAP classes at least)
CASES = [
    ("MatMul", [f(2, 3, 4), f(2, 4, 5)], {}, 20, 3),
    ("MatMul", [f(2, 3, 4), f(4, 5)], {}, 20, 3),
    ("MatMul", [f(4), f(4, 5)], {}, 20, 0),
    ("MatMulInteger", [picks(9, 3, 4).astype(np.uint8), picks(9, 4, 5).astype(np.uint8)], {}, 20, 2),
    ("Gemm", [f(3, 4), f(5, 4), f(5)], {"transB": 1}, 20, 2),
    ("Gemm", [f(4, 3), f(4, 5), f(1, 5)], {"transA": 1}, 20, 2),
    ("Einsum", [f(2, 3, 4), f(2, 4, 5)], {"equation": "bij,bjk->bik"}, 20, 3),
    ("Einsum", [f(2, 3, 4), f(1, 4, 5)], {"equation": "...ij,...jk->...ik"}, 20, 3),
    ("Einsum", [f(2, 3, 4)], {"equation": "...ij->...ji"}, 20, 3),
    ("Einsum", [f(3, 4), f(4, 5)], {"equation": "ij,jk"}, 20, 2),
    ("Einsum", [f(3, 3)], {"equation": "ii->i"}, 20, 0),
    ("Conv", [f(2, 3, 5, 5), f(4, 3, 3, 3), f(4)], {"kernel_shape": [3, 3]}, 20, 2),
    ("Conv", [f(2, 4, 5, 5), f(4, 1, 3, 3), f(4)], {"kernel_shape": [3, 3], "group": 4}, 20, 2),
    ("Conv", [f(1, 4, 5, 5), f(6, 2, 3, 3)], {"kernel_shape": [3, 3], "group": 2}, 20, 2),
    ("ConvTranspose", [f(2, 3, 4, 4), f(3, 5, 3, 3), f(5)], {"kernel_shape": [3, 3]}, 20, 2),
    ("DeformConv", [f(2, 3, 5, 5), f(4, 3, 3, 3), f(2, 18, 3, 3), f(4), f(2, 9, 3, 3)], {}, 22, 2),
    ("Add", [f(2, 3, 4), f(3, 1)], {}, 20, 3),
    ("Where", [f(2, 1) > 1, f(2, 3), f(3)], {}, 20, 2),
    ("Gelu", [f(2, 3)], {}, 20, 2),
    ("PRelu", [f(2, 3, 4) - 1, f(3, 1)], {}, 20, 3),
    ("Transpose", [f(2, 3, 4)], {"perm": [2, 0, 1]}, 20, 3),
    ("Flatten", [f(2, 3, 4)], {}, 20, 2),
    ("Concat", [f(2, 3), f(2, 4)], {"axis": 1}, 20, 1),
    ("Split", [f(4, 3)], {"axis": 0, "num_outputs": 2}, 20, 1),
    ("Slice", [f(4, 3, 5), i(1), i(3), i(0)], {}, 20, 2),
    ("Slice", [f(4, 3, 5), i(4), i(-9), i(2), i(-1)], {}, 20, 0),
    ("Expand", [f(3, 1), i(2, 3, 4)], {}, 20, 1),
    ("Tile", [f(3, 4), i(1, 2)], {}, 20, 1),
    ("Pad", [f(3, 4), i(0, 1, 0, 2)], {}, 20, 1),
    ("Pad", [f(3, 4, 2), i(1, 2), np.float32(0), i(1)], {}, 20, 2),
    ("CenterCropPad", [f(4, 3, 5), i(4, 7, 2)], {}, 20, 1),
    ("Trilu", [f(2, 3, 4)], {}, 20, 1),
    ("ReverseSequence", [f(4, 3, 2), i(4, 1, 2)], {"time_axis": 0, "batch_axis": 1}, 20, 2),
    ("DepthToSpace", [f(2, 12, 3, 4)], {"blocksize": 2}, 20, 3),
    ("DepthToSpace", [f(2, 12, 3, 4)], {"blocksize": 2, "mode": "CRD"}, 20, 4),
    ("SpaceToDepth", [f(2, 3, 4, 6)], {"blocksize": 2}, 20, 3),
    ("Col2Im", [f(2, 12, 9), i(4, 4), i(2, 2)], {}, 20, 2),
    ("Gather", [f(4, 3), picks(4, 2, 5)], {"axis": 0}, 20, 3),
    ("GatherElements", [f(4, 3), picks(4, 2, 3)], {"axis": 0}, 20, 2),
    ("GatherND", [f(2, 3, 4), picks(3, 2, 5, 1)], {"batch_dims": 1}, 20, 3),
    ("ScatterElements", [f(4, 3), picks(4, 1, 3), f(1, 3)], {"axis": 0}, 20, 1),
    ("ScatterND", [f(4, 3, 2), i(1, 3).reshape(2, 1), f(2, 3, 2)], {}, 20, 2),
    ("TensorScatter", [f(2, 3, 6, 4), f(2, 3, 2, 4), i(1, 3)], {}, 24, 3),
    ("OneHot", [picks(5, 3, 4), np.array(5), f(2)], {"axis": 1}, 20, 2),
    ("Compress", [f(3, 4), np.array([True, False, True])], {"axis": 0}, 20, 1),
    ("MaxPool", [f(2, 3, 6, 6)], {"kernel_shape": [2, 2]}, 20, 2),
    ("GlobalAveragePool", [f(2, 3, 4, 4)], {}, 20, 2),
    ("Softmax", [f(2, 3, 4)], {"axis": 1}, 20, 2),
    ("LogSoftmax", [f(2, 3, 4)], {"axis": 1}, 20, 2),
    ("ReduceMean", [f(2, 3, 4), i(1)], {"keepdims": 0}, 20, 2),
    ("ReduceLogSumExp", [f(2, 3, 4), i(-1)], {}, 20, 2),
    ("ArgMax", [f(2, 3, 4)], {"axis": 1, "keepdims": 0}, 20, 2),
    ("TopK", [f(3, 5), i(2)], {}, 20, 1),
    ("CumSum", [f(3, 5), np.array(1)], {}, 20, 1),
    ("CumProd", [f(3, 5), np.array(0)], {}, 26, 1),
    ("Hardmax", [f(3, 5)], {}, 20, 1),
    ("LayerNormalization", [f(2, 3, 4), f(4), f(4)], {"axis": -1}, 20, 2),
    ("LayerNormalization", [f(2, 3, 4), f(3, 4), f(3, 4)], {"axis": 1}, 20, 1),
    ("RMSNormalization", [f(2, 3, 4), f(4)], {}, 23, 2),
    ("BatchNormalization", [f(2, 3, 4), f(3), f(3), f(3), f(3)], {}, 20, 3),
    ("InstanceNormalization", [f(2, 3, 4), f(3), f(3)], {}, 20, 2),
    ("GroupNormalization", [f(2, 6, 4), f(6), f(6)], {"num_groups": 3}, 21, 2),
    ("MeanVarianceNormalization", [f(2, 3, 4, 2)], {}, 20, 1),
    ("LpNormalization", [f(2, 3, 4)], {"axis": 1}, 20, 2),
    ("LRN", [f(2, 5, 3, 3)], {"size": 3}, 20, 3),
    ("QuantizeLinear", [f(2, 3, 3), f(3), np.zeros(3, np.uint8)], {"axis": 1}, 20, 3),
    ("DequantizeLinear", [picks(9, 4, 6).astype(np.uint8), f(4, 3)], {"axis": 1, "block_size": 2}, 21, 2),
    ("Resize", [f(2, 3, 4, 4), None, i(1, 1, 2, 2).astype("f")], {}, 20, 2),
    ("Upsample", [f(2, 3, 4, 4), i(1, 1, 2, 2).astype("f")], {}, 9, 2),
    ("GridSample", [f(2, 3, 4, 4), f(2, 5, 6, 2) - 1], {}, 22, 4),
    ("AffineGrid", [f(2, 2, 3), i(2, 3, 4, 5)], {}, 20, 1),
    ("RoiAlign", [f(2, 3, 6, 6), f(4, 4), picks(2, 4)], {"output_height": 2, "output_width": 2}, 22, 2),
    ("Det", [f(2, 3, 3)], {}, 22, 1),
    ("DFT", [f(2, 8, 3, 1), None, np.array(1)], {}, 20, 2),
    ("STFT", [f(2, 16, 1), np.array(4), f(8)], {}, 17, 1),
    ("SoftmaxCrossEntropyLoss", [f(3, 4, 2), picks(4, 3, 2)], {"reduction": "none"}, 20, 2),
    ("NegativeLogLikelihoodLoss", [f(3, 4), picks(4, 3)], {"reduction": "none"}, 20, 1),
    ("LSTM", [f(4, 3, 5), f(1, 8, 5), f(1, 8, 2)], {"hidden_size": 2}, 22, 1),
    ("GRU", [f(4, 3, 5), f(1, 6, 5), f(1, 6, 2), None, None, f(1, 3, 2)], {"hidden_size": 2}, 22, 1),
    ("RNN", [f(3, 4, 5), f(1, 2, 5), f(1, 2, 2)], {"hidden_size": 2, "layout": 1}, 22, 1),
    ("Attention", [f(2, 4, 3, 6), f(2, 2, 5, 6), f(2, 2, 5, 7)], {}, 23, 4),
    ("Attention", [f(2, 4, 3, 6), f(2, 2, 5, 6), f(2, 2, 5, 7)], CAUSAL, 23, 3),
    ("Attention", [f(2, 3, 24), f(2, 5, 12), f(2, 5, 14)], PACKED, 23, 3),
    ("Attention", [f(2, 4, 4, 6), f(2, 2, 5, 6), f(2, 2, 5, 7), MASK], {"softcap": 2.0}, 23, 4),
    ("Attention", [f(2, 4, 4, 6), f(2, 2, 5, 6), f(2, 2, 5, 7), f(2, 4, 4, 5)], {}, 23, 4),
    ("LinearAttention", [f(2, 3, 8), f(2, 3, 4), f(2, 3, 6), None, f(2, 3, 2), f(2, 3, 2)], PACKED, 27, 2),
    ("CausalConvWithState", [f(2, 3, 6), f(3, 1, 4), f(3), f(2, 3, 3)], {}, 27, 2),
    ("RotaryEmbedding", [f(2, 4, 3, 6), f(2, 3, 3), f(2, 3, 3)], {}, 23, 2),
    ("RotaryEmbedding", [f(2, 3, 24), f(9, 3), f(9, 3), picks(9, 2, 3)], {"num_heads": 4}, 23, 3),
    ("StringConcat", [np.array(["a", "b"]), np.array(["c", "d"])], {}, 20, 1),
    ("SwiGLU", [f(2, 3), f(2, 3)], {}, 28, 2),
]
SEVEN = np.array(7, np.uint8)
SCALE = np.float32(0.5)
# What the reference does not have, in onnxruntime: (domain, operator, inputs, attributes, named MAP classes).
FUSED = [
    ("", "ConvTranspose", [f(2, 4, 4, 4), f(4, 3, 3, 3), f(6)], {"kernel_shape": [3, 3], "group": 2}, 2),
    ("", "GatherElements", [f(4, 3), picks(4, 2, 2)], {"axis": 0}, 1),
    ("", "MaxRoiPool", [f(2, 3, 6, 6), np.abs(f(4, 5))], {"pooled_shape": [2, 2]}, 2),
    (MS, "FusedMatMul", [f(2, 4, 3), f(2, 4, 5)], {"transA": 1}, 3),
    (MS, "FusedGemm", [f(4, 3), f(4, 5), f(5)], {"transA": 1, "activation": "Relu"}, 2),
    (MS, "MatMulNBits", [f(2, 32), bytes_(4, 2, 8), f(8)], {"K": 32, "N": 4, "bits": 4, "block_size": 16}, 2),
    (MS, "QGemm", [bytes_(3, 4), SCALE, SEVEN, bytes_(4, 5), f(5), bytes_(5), None, SCALE, SEVEN], {}, 2),
    (MS, "MatMulIntegerToFloat", [bytes_(3, 4), bytes_(4, 5), SCALE, f(5), SEVEN, bytes_(5), f(5)], {}, 2),
    (MS, "DynamicQuantizeMatMul", [f(3, 4), bytes_(4, 5), f(5), bytes_(5), f(5)], {}, 1),
    (MS, "FusedConv", [f(2, 3, 5, 5), f(4, 3, 3, 3), f(4), f(2, 4, 3, 3)], {"activation": "Relu"}, 2),
    (MS, "QLinearAdd", [bytes_(2, 3), SCALE, SEVEN, bytes_(3), SCALE, SEVEN, SCALE, SEVEN], {}, 2),
    (MS, "QLinearConcat", [SCALE, SEVEN, bytes_(2, 3), SCALE, SEVEN, bytes_(2, 4), SCALE, SEVEN], {"axis": 1}, 1),
    (MS, "NhwcMaxPool", [bytes_(2, 5, 5, 3)], {"kernel_shape": [2, 2]}, 2),
    (MS, "BiasGelu", [f(2, 3, 4), f(4)], {}, 3),
    (MS, "SkipLayerNormalization", [f(2, 3, 8), f(2, 3, 8), f(8), f(8), f(8)], {}, 2),
    (MS, "EmbedLayerNormalization", EMBEDDED, {}, 1),
    (MS, "MultiHeadAttention", [f(2, 3, 8), f(2, 5, 8), f(2, 5, 8)], {"num_heads": 2}, 2),
    (MS, "GroupQueryAttention", GROUPED, {"num_heads": 4, "kv_num_heads": 2}, 2),
    (
        MS,
        "CropAndResize",
        [f(2, 3, 6, 6), f(4, 4) / 2, picks(2, 4).astype(np.int32), np.array([2, 2], np.int32)],
        {},
        2,
    ),
    (MS, "Inverse", [f(2, 3, 3)], {}, 1),
    (MS, "CDist", [f(3, 4), f(5, 4)], {"metric": "euclidean"}, 2),
    (MS, "UnfoldTensor", [f(2, 3, 8)], {"dim": -1, "size": 4, "step": 2}, 2),
]
_GROUPS = {"LinearAttention": {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": "gated_delta"}}


@pytest.mark.parametrize(("op", "arrays", "attrs", "opset", "classes"), CASES, ids=lambda value: str(value)[:16])
def test_permuting_a_mapped_axis_permutes_the_result(op, arrays, attrs, opset, classes):
    attrs = _GROUPS.get(op, attrs)
    expected = evaluate(op, arrays, attrs, opset)
    view = looked_at(op, arrays, expected, attrs, {"": opset})
    check(view, arrays, expected, classes, lambda moved: evaluate(op, moved, attrs, opset))


@pytest.mark.parametrize(("domain", "op", "arrays", "attrs", "classes"), FUSED, ids=lambda value: str(value)[:16])
def test_as_onnxruntime_computes_it(domain, op, arrays, attrs, classes):
    arrays = [None if array is None else np.asarray(array) for array in arrays]
    expected = run(op, domain, arrays, attrs)
    view = looked_at(op, arrays, expected, attrs, {}, domain)
    check(view, arrays, expected, classes, lambda moved: run(op, domain, moved, attrs))


def check(view, arrays, expected, classes, compute):
    ties = spec(view.op, view.domain).axes(view)
    ports = {f"x{n}": array for n, array in enumerate(arrays) if array is not None}
    ports |= {f"y{n}": array for n, array in enumerate(expected)}
    assert_partition(ties, ports)
    moving = [tie for tie in ties if tie.role is Role.MAP and any(port[0] == "y" for port, _, _ in tie.members)]
    assert len(moving) >= classes
    for tie in moving:
        port, axis, factor = tie.members[0]
        order = np.random.default_rng(1).permutation(ports[port].shape[axis] // factor)
        moved = [permuted(array, f"x{n}", tie.members, order) for n, array in enumerate(arrays)]
        for number, (was, now) in enumerate(zip(expected, compute(moved), strict=True)):
            assert_close(now, permuted(was, f"y{number}", tie.members, order))


def assert_partition(ties, ports):
    """No axis twice, none that is not there, and as many positions on every member."""
    seen = [(port, axis) for tie in ties for port, axis, _ in tie.members]
    assert len(seen) == len(set(seen))
    for tie in ties:
        extents = [ports[port].shape[axis] / factor for port, axis, factor in tie.members]
        assert len(set(extents)) == 1, f"{tie} has {extents} positions"


def assert_close(now, wanted):
    if wanted.dtype.kind in "OUS":
        assert (now == wanted).all()
    else:
        np.testing.assert_allclose(now, wanted, rtol=1e-4, atol=1e-5)  # float32 sums in another order


def permuted(array, port: str, members, order):
    for name, axis, factor in members:
        if name == port:
            index = (order[:, None] * factor + np.arange(factor)).reshape(-1)
            array = np.take(array, index, axis)
    return array


def looked_at(op, arrays, results, attrs, opsets, domain="") -> OpView:
    inputs = tuple(None if array is None else tensor(array) for array in arrays)
    return OpView(op, domain, inputs, tuple(map(tensor, results)), Attrs.of(**attrs), opsets=opsets)


def tensor(array) -> Tensor:
    dtype = DType.STRING if array.dtype.kind in "OUS" else DType.from_onnx(helper.np_dtype_to_tensor_dtype(array.dtype))
    return Tensor(array.shape, dtype, array if dtype is not DType.FLOAT32 or array.ndim == 1 else None)


RESULTS = {
    "EmbedLayerNormalization": 2,
    "LSTM": 3,
    "GRU": 2,
    "RNN": 2,
    "TopK": 1,
    "Split": 2,
    "LinearAttention": 2,
    "CausalConvWithState": 2,
}


def model_of(op: str, domain: str, arrays, attrs, opset: int):
    names = ["" if array is None else f"x{n}" for n, array in enumerate(arrays)]
    results = [f"y{n}" for n in range(RESULTS.get(op, 1))]
    types = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
        if name
    ]
    node = helper.make_node(op, names, results, domain=domain, **attrs)
    graph = helper.make_graph([node], "g", types, [onnx.ValueInfoProto(name=name) for name in results])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model, {name: array for name, array in zip(names, arrays, strict=True) if name}


def evaluate(op: str, arrays, attrs, opset: int):
    model, given = model_of(op, "", arrays, attrs, opset)
    return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, given)]


def run(op: str, domain: str, arrays, attrs):
    model, given = model_of(op, domain, arrays, attrs, 20)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, given)
