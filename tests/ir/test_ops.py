"""Operator specifications: hand-computed work, axes that are true, and nothing but our error on nonsense."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from eopt.ir.errors import InputError
from eopt.ir.node import Attrs
from eopt.ir.ops import OpView, Role, Tensor, Unit, known, spec, view
from eopt.ir.text_parse import loads
from eopt.ir.types import DType

F32, I8 = DType.FLOAT32, DType.INT8


def seen(op: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], dtype=F32, domain="", **attrs) -> OpView:
    tensors = tuple(Tensor(shape, dtype) for shape in inputs)
    return OpView(op, domain, tensors, (Tensor(output, dtype),), Attrs.of(**attrs))


def work(*args, **kwargs):
    looked_at = seen(*args, **kwargs)
    described = spec(looked_at.op, looked_at.domain)
    assert described is not None
    return described.work(looked_at)


def test_matmul():
    done = work("MatMul", [(8, 512, 1024), (1024, 4096)], (8, 512, 4096))
    assert done.flops == 2 * 8 * 512 * 1024 * 4096
    assert done.read_bytes == 4 * (8 * 512 * 1024 + 1024 * 4096)
    assert (done.write_bytes, done.unit, done.dtype) == (4 * 8 * 512 * 4096, Unit.MATRIX, F32)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.integers(2, 5))
def test_matmul_flops_are_linear_in_every_dim(m, n, k, factor):
    base = work("MatMul", [(m, k), (k, n)], (m, n)).flops
    assert work("MatMul", [(m * factor, k), (k, n)], (m * factor, n)).flops == base * factor
    assert work("MatMul", [(m, k), (k, n * factor)], (m, n * factor)).flops == base * factor
    assert work("MatMul", [(m, k * factor), (k * factor, n)], (m, n)).flops == base * factor


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b):
    weight = (32, 16) if trans_b else (16, 32)
    assert work("Gemm", [(4, 16), weight, (32,)], (4, 32), transB=trans_b).flops == 2 * 4 * 16 * 32


def test_convolutions():
    dense = work("Conv", [(2, 16, 10, 10), (32, 16, 3, 3)], (2, 32, 8, 8))
    assert (dense.flops, dense.unit) == (2 * 2 * 32 * 64 * 16 * 9, Unit.MATRIX)
    grouped = work("Conv", [(2, 16, 10, 10), (32, 4, 3, 3)], (2, 32, 8, 8), group=4)
    assert grouped.flops == dense.flops / 4
    depthwise = work("Conv", [(2, 16, 10, 10), (16, 1, 3, 3)], (2, 16, 8, 8), group=16)
    assert depthwise.unit is Unit.VECTOR


def test_integer_products_are_int8():
    assert work("MatMulInteger", [(4, 8), (8, 2)], (4, 2), dtype=I8).dtype is I8


def test_a_gather_reads_its_rows_not_the_table():
    table, ids = Tensor((30000, 384), F32), Tensor((2, 16), DType.INT64)
    looked_at = OpView("Gather", "", (table, ids), (Tensor((2, 16, 384), F32),), Attrs.of(axis=0))
    assert spec("Gather").work(looked_at).read_bytes == 2 * 16 * 384 * 4 + 2 * 16 * 8


def test_views_move_nothing():
    for op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
        done = work(op, [(4, 8)], (32,))
        assert (done.flops, done.read_bytes, done.write_bytes, done.unit) == (0, 0, 0, Unit.NONE)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention(causal):
    batch, heads, queries, size = 2, 4, 8, 16
    shape = (batch, heads, queries, size)
    done = work("Attention", [shape] * 3, shape, is_causal=causal)
    pairs = queries * (queries + 1) // 2 if causal else queries**2
    assert done.flops == batch * heads * pairs * (4 * size + 14)
    assert done.read_bytes == 3 * prod(shape) * 4, "scores stay on chip"


def test_sub_byte_types_count_fractions():
    assert Tensor((3,), DType.INT4).nbytes == 1.5


def test_einsum():
    assert work("Einsum", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), equation="bij,bjk->bik").flops == 2 * 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    "looked_at",
    [
        seen("Softmax", [(4, 8)], (4, 8), axis=7),
        seen("Gather", [(4, 8)], (4, 8)),
        seen("Conv", [(2, 16, 8, 8)], (2, 16, 8, 8)),
        seen("Conv", [(2, 16, 8, 8), (16, 16, 3, 3)], (2, 16, 8, 8), group=0),
        seen("Einsum", [(2, 3)], (2, 3), equation="...->..."),
        seen("MatMulNBits", [(2, 3)], (2, 3), domain="com.microsoft"),
        seen("MaxPool", [(2, 3, 8, 8)], (2, 3, 4, 4)),
    ],
    ids=lambda looked_at: looked_at.op,
)
def test_nonsense_ends_in_our_error(looked_at):
    described = spec(looked_at.op, looked_at.domain)
    with pytest.raises(InputError, match=looked_at.op):
        described.work(looked_at)
        described.axes(looked_at)


def test_symbolic_dims_are_bound_late():
    model = loads(
        'model {"": 20}\ninput x: float32[batch, 4]\ny: float32[batch, 4] = Relu(x)\noutput y: float32[batch, 4]'
    )
    (op,) = model.leaves()
    assert view(model, op, {}) is None
    assert view(model, op, {"batch": 3}).outputs[0].shape == (3, 4)


# What the exports of transformers' BERT, GPT-2, ViT, ResNet, MobileNetV2 and Llama types and of the examples contain.
USED = """Add And BatchNormalization Cast CastLike Clip Concat Constant Conv Cos Div Equal Expand Flatten Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GreaterOrEqual Identity IsNaN LayerNormalization LessOrEqual
    MatMul Max MaxPool Mul Neg Not Pad Pow Range Reciprocal ReduceL2 ReduceMean ReduceSum Relu Reshape Shape Sigmoid Sin
    Slice Softmax Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where Erf Attention RMSNormalization QuantizeLinear
    DequantizeLinear""".split()


@pytest.mark.parametrize("op", USED)
def test_every_operator_of_the_exports_has_a_specification(op):
    assert spec(op) is not None


CONTRIB = """Attention BiasGelu EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul Gelu
    GroupQueryAttention MatMulIntegerToFloat MatMulNBits MultiHeadAttention QGemm QLinearAdd QLinearConcat
    QLinearGlobalAveragePool
    QLinearSoftmax QuickGelu RotaryEmbedding SkipLayerNormalization SkipSimplifiedLayerNormalization""".split()


@pytest.mark.parametrize("op", CONTRIB)
def test_what_onnxruntime_fuses_into_has_a_specification(op):
    assert spec(op, "com.microsoft") is not None


def test_there_are_many():
    assert len(known()) >= 150


# One position of a MAP class, permuted on every port that holds it, permutes the result: the meaning of the axis map.
CASES = [
    ("MatMul", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), {}),
    ("MatMul", [(2, 3, 4), (4, 5)], (2, 3, 5), {}),
    ("Gemm", [(3, 4), (5, 4), (5,)], (3, 5), {"transB": 1}),
    ("Conv", [(2, 3, 5, 5), (4, 3, 3, 3), (4,)], (2, 4, 3, 3), {"kernel_shape": [3, 3]}),
    ("Conv", [(2, 4, 5, 5), (4, 1, 3, 3), (4,)], (2, 4, 3, 3), {"kernel_shape": [3, 3], "group": 4}),
    ("Conv", [(1, 4, 5, 5), (6, 2, 3, 3)], (1, 6, 3, 3), {"kernel_shape": [3, 3], "group": 2}),
    ("Add", [(2, 3, 4), (3, 1)], (2, 3, 4), {}),
    ("Transpose", [(2, 3, 4)], (4, 2, 3), {"perm": [2, 0, 1]}),
    ("Softmax", [(2, 3, 4)], (2, 3, 4), {"axis": 1}),
    ("LayerNormalization", [(2, 3, 4), (4,), (4,)], (2, 3, 4), {"axis": -1}),
    ("BatchNormalization", [(2, 3, 4), (3,), (3,), (3,), (3,)], (2, 3, 4), {}),
    ("Concat", [(2, 3), (2, 4)], (2, 7), {"axis": 1}),
    ("GlobalAveragePool", [(2, 3, 4, 4)], (2, 3, 1, 1), {}),
    ("Flatten", [(2, 3, 4)], (2, 12), {}),
    ("Gelu", [(2, 3)], (2, 3), {}),
]


@pytest.mark.parametrize(("op", "shapes", "output", "attrs"), CASES, ids=lambda value: str(value)[:24])
def test_permuting_a_mapped_axis_permutes_the_result(op, shapes, output, attrs):
    rng = np.random.default_rng(0)
    arrays = [rng.random(shape).astype("f") + 0.5 for shape in shapes]
    ties = spec(op).axes(seen(op, shapes, output, **attrs))
    expected = evaluate(op, arrays, attrs)
    assert expected.shape == output
    assert any(tie.role is Role.MAP for tie in ties)
    for tie in ties:
        extents = {
            port: (shapes[int(port[1:])] if port[0] == "x" else output)[axis] // f for port, axis, f in tie.members
        }
        assert len(set(extents.values())) == 1, "members of a class have the same number of positions"
        if tie.role is not Role.MAP or not any(port[0] == "y" for port, _, _ in tie.members):
            continue
        order = rng.permutation(next(iter(extents.values())))
        moved = [permuted(array, f"x{i}", tie.members, order) for i, array in enumerate(arrays)]
        np.testing.assert_allclose(
            evaluate(op, moved, attrs), permuted(expected, "y0", tie.members, order), rtol=1e-4, atol=1e-5
        )


def permuted(array, port: str, members, order):
    for name, axis, factor in members:
        if name == port:
            index = (order[:, None] * factor + np.arange(factor)).reshape(-1)
            array = np.take(array, index, axis)
    return array


def evaluate(op: str, arrays, attrs):
    names = [f"x{i}" for i in range(len(arrays))]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in zip(names, arrays, strict=True)]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attrs)],
        "g",
        info,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]
