"""From queries to kernels: shapes as ONNX infers them, work as the specifications count it, errors that say what."""

from __future__ import annotations

import json
from math import prod

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, shape_inference

from eopt.costmodel import records
from eopt.costmodel.query import Kernel, Unknown
from eopt.costmodel.records import kernels_of, record
from eopt.costmodel.results import result_shapes
from eopt.ir.errors import InputError
from eopt.ir.node import Attrs
from eopt.ir.ops import Tensor, Unit
from eopt.ir.types import DType

DIM = st.integers(1, 6)
DTYPES = ("float32", "float16", "bfloat16", "float8_e4m3", "float4_e2m1", "int8", "float64", "uint8")


def one(op: str, inputs: list, dtype: str = "bfloat16", **more: object) -> Kernel:
    (kernel,) = record({"op": op, "inputs": inputs, "dtype": dtype, **more})
    return kernel


def by_onnx(op: str, shapes: list[tuple[int, ...]], **attrs: object) -> tuple[int, ...] | None:
    """What ONNX infers; None where it refuses."""
    node = helper.make_node(op, [f"x{i}" for i in range(len(shapes))], ["y"], **attrs)
    fed = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    graph = helper.make_graph([node], "g", fed, [helper.make_empty_tensor_value_info("y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    try:
        inferred = shape_inference.infer_shapes(proto, strict_mode=True)
    except shape_inference.InferenceError:
        return None
    return tuple(dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim)


def by_eopt(op: str, shapes: list[tuple[int, ...]], **attrs: object) -> tuple[int, ...] | None:
    tensors = [Tensor(shape, DType.FLOAT32) for shape in shapes]
    try:
        return result_shapes(op, "", tensors, Attrs.of(**attrs))[0]
    except InputError:
        return None


@given(st.lists(DIM, max_size=2), st.lists(DIM, max_size=2), st.booleans(), DIM, DIM, DIM, DIM)
def test_products_have_the_shape_onnx_infers(left, right, alike, m, k, inner, n):
    a, b = (*left, m, k), (*(left if alike else right), inner if not alike else k, n)
    for shapes in ([a, b], [a, (k,)], [(k,), b], [a, (k, n)]):
        assert by_eopt("MatMul", shapes) == by_onnx("MatMul", shapes), shapes


@given(DIM, DIM, DIM, DIM, st.booleans(), st.booleans())
def test_gemm_has_the_shape_onnx_infers(m, k, inner, n, turned_a, turned_b):
    for depth in (k, inner):
        shapes = [(k, m) if turned_a else (m, k), (n, depth) if turned_b else (depth, n)]
        attrs = {"transA": int(turned_a), "transB": int(turned_b)}
        if depth == k:
            assert by_eopt("Gemm", shapes, **attrs) == by_onnx("Gemm", shapes, **attrs)
        else:
            assert by_eopt("Gemm", shapes, **attrs) is None  # onnx does not look


@given(
    st.integers(1, 3),
    st.data(),
    st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
)
def test_convolutions_have_the_shape_onnx_infers(rank, data, auto_pad):
    draw = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(rank))
    group = data.draw(st.integers(1, 2))
    kernel, extents, strides = draw(1, 3), draw(7, 12), draw(1, 3)
    attrs = {"strides": strides, "group": group, "auto_pad": auto_pad, "kernel_shape": kernel}
    if auto_pad == "NOTSET":
        attrs |= {"dilations": draw(1, 2), "pads": draw(0, 2) + draw(0, 2)}
    channels = data.draw(DIM)
    shapes = [(data.draw(DIM), channels * group, *extents), (2 * group, channels, *kernel)]
    assert by_eopt("Conv", shapes, **attrs) == by_onnx("Conv", shapes, **attrs)


@given(st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), min_size=2, max_size=2))
def test_elementwise_results_broadcast_as_onnx_says(shapes):
    assert by_eopt("Add", shapes) == by_onnx("Add", shapes)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.integers(1, 4))
def test_the_work_of_a_product(m, k, n, batch):
    kernel = one("MatMul", [[batch, m, k], [k, n]])
    assert kernel.flops == ((Unit.MATRIX, DType.BFLOAT16, 2.0 * batch * m * k * n),)
    assert kernel.weight_bytes == 2 * k * n
    assert kernel.activation_bytes == 2 * batch * m * (k + n)
    assert kernel.gemm == (1, batch * m, n, k)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_the_backward_pass_of_a_product_is_two_of_its_size(m, k, n):
    query = {"op": "Gemm", "inputs": [[m, k], [k, n]], "dtype": "float16"}
    forward, backward = record(query), record({**query, "phase": "backward"})
    assert [sum(amount for *_, amount in kernel.flops) for kernel in backward] == [2.0 * m * k * n] * 2
    assert [kernel.gemm for kernel in backward] == [(1, m, k, n), (1, k, n, m)]
    assert record({**query, "phase": "training"}) == (*forward, *backward)


def test_the_backward_pass_of_elementwise_work_reads_a_gradient_besides():
    forward = one("Gelu", [[8, 128]])
    backward = one("Gelu", [[8, 128]], phase="backward")
    assert backward.activation_bytes == 1.5 * forward.activation_bytes


def test_attention_counts_keys_in_the_cache():
    short = one("Attention", [[1, 8, 1, 64], [1, 2, 1, 64], [1, 2, 1, 64]], attrs={"past": 99})
    assert short.gemm == (8, 1, 100, 64)
    assert short.family == "decode"
    given_whole = one("Attention", [[1, 8, 1, 64], [1, 2, 100, 64], [1, 2, 100, 64]])
    assert given_whole.activation_bytes == short.activation_bytes


def test_a_window_leaves_keys_unread():
    inputs = [[1, 8, 1, 64], [1, 2, 4096, 64], [1, 2, 4096, 64]]
    short = one("Attention", inputs, attrs={"window": 128})
    assert short.activation_bytes == 2 * (2 * 8 * 64 + 2 * 2 * 129 * 64)
    assert short.gemm == (8, 1, 129, 64)
    assert short.flops[0][2] == one("Attention", inputs).flops[0][2] / 32


def test_scales_add_their_bytes():
    plain = one("MatMul", [[64, 64], [64, 64]], "float4_e2m1")
    scaled = one("MatMul", [[64, 64], [64, 64]], "float4_e2m1", scale="nvfp4")
    assert scaled.weight_bytes == 1.125 * plain.weight_bytes


def test_a_block_may_be_named():
    assert one("MatMul", [[64, 64], [64, 64]], "float8_e4m3", scale="block:128").scale == "block"


def test_narrow_weights():
    kernel = one("MatMul", [[64, 64], [64, 64]], weight_dtype="int4")
    assert (kernel.weight_bits, kernel.weight_bytes) == (4, 2048)


@given(
    st.sampled_from(["MatMul", "Gemm", "Add", "Where", "Gelu", "Cast", "Softmax", "LayerNormalization"]),
    st.lists(st.lists(st.integers(0, 5) | st.just(1 << 39), max_size=4).map(tuple), max_size=3).map(tuple),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.sampled_from(["", "int4", "float8_e4m3"]),
    st.sampled_from(["", "tensor", "block:128", "nvfp4"]),
    st.sampled_from(["", '{"transB":1}', '{"transA":1,"transB":1}', '{"axis":0}', '{"axis":9}', '{"alpha":"x"}']),
)
@example("Softmax", ((1 << 39,), (1 << 39, 1 << 39)), False, "float32", "", "", "")  # an operand no memory holds
def test_the_short_way_finds_what_the_specification_says(op, shapes, alike, dtype, weight, scale, attrs):
    shapes = (shapes[0],) * len(shapes) if alike and shapes else shapes
    numbers = records._format(dtype, weight, "", scale)
    try:
        short = records._short(op, shapes, numbers, attrs)
    except records._BADLY_MADE:
        short = None
        with pytest.raises((InputError, *records._BADLY_MADE)):
            records._long(op, shapes, numbers, attrs)
    assert short is None or short == records._long(op, shapes, numbers, attrs)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.booleans())
def test_products_go_the_short_way(m, k, n, batch, stacked, gemm):
    numbers = records._format("float8_e4m3", "int4", "", "mx")
    if gemm:
        op, shapes, attrs = "Gemm", ((m, k), (n, k), (n,)), '{"transB":1}'
    else:
        op, shapes, attrs = "MatMul", ((batch, m, k), (batch, k, n) if stacked else (k, n)), ""
    short = records._short(op, shapes, numbers, attrs)
    assert short is not None
    assert short == records._long(op, shapes, numbers, attrs)


@pytest.mark.parametrize("op", ["Add", "Where", "Gelu", "Softmax", "LogSoftmax", "RMSNormalization"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_work_on_rows_and_elements_goes_the_short_way(op, dtype):
    numbers, shapes = records._format(dtype, "int4", "", "tensor"), ((8, 1, 64), (64,), (2, 64))
    if op not in ("Add", "Where"):
        shapes = shapes[:1]
    short = records._short(op, shapes, numbers, "")
    assert short is not None
    assert short == records._long(op, shapes, numbers, "")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "op, inputs and dtype"),
        ({"op": "MatMul", "inputs": "8x8", "dtype": "float16"}, "op, inputs and dtype"),
        ({"op": "MatMul", "inputs": [[8, 8], [9, 8]], "dtype": "float16"}, "inner extents differ"),
        ({"op": "MatMul", "inputs": [[8, 8.0], [8, 8]], "dtype": "float16"}, "no list of extents"),
        ({"op": "MatMul", "inputs": [[8, True], [1, 8]], "dtype": "float16"}, "no list of extents"),
        ({"op": "MatMul", "inputs": [[8, -1], [1, 8]], "dtype": "float16"}, "no list of extents"),
        ({"op": "MatMul", "inputs": [[8, 1 << 41], [1, 8]], "dtype": "float16"}, "no list of extents"),
        ({"op": "MatMul", "inputs": [[1] * 17, [1, 8]], "dtype": "float16"}, "no list of extents"),
        ({"op": "MatMul", "inputs": [], "dtype": "float16"}, "missing"),
        ({"op": "MatMul", "inputs": [None, [8, 8]], "dtype": "float16"}, "missing"),
        ({"op": "Relu", "inputs": [[8]], "dtype": "float13"}, "float13"),
        ({"op": "Relu", "inputs": [[8]], "dtype": "float16", "phase": "sideways"}, "choose from forward"),
        ({"op": "Relu", "inputs": [[8]], "dtype": "float16", "math": "exact"}, "choose from ieee"),
        ({"op": "Relu", "inputs": [[8]], "dtype": "float16", "scale": "row"}, "choose from tensor"),
        ({"op": "Relu", "inputs": [[8]], "dtype": "float16", "math": 3}, "texts"),
        ({"op": "Relu", "inputs": [[8]], "dtype": "float16", "attrs": [1]}, "attrs must be an object"),
        ({"op": "Gelu", "inputs": [[8]], "dtype": "float16", "attrs": {"a": {}}}, "make no sense"),
        ({"op": "Softmax", "inputs": [[8]], "dtype": "float16", "attrs": {"axis": 3}}, "axis 3"),
        ({"op": "Conv", "inputs": [[1, 8, 4], [8, 8, 4]], "dtype": "float16", "attrs": {"group": "q"}}, "differ"),
        ({"op": "Attention", "inputs": [[8, 8], [8, 8], [8, 8]], "dtype": "float16", "attrs": {"past": "x"}}, "sense"),
        ({"op": "Add", "inputs": [[1 << 39, 1], [1 << 39]], "dtype": "float16"}, "no memory holds them"),
        ({"op": "Reshape", "inputs": [[8, 8], [2]], "dtype": "float16"}, "Reshape"),
    ],
)
def test_what_is_refused(query, said):
    with pytest.raises(InputError, match=said):
        record(query)


def test_what_nobody_prices():
    for op in ("AllReduce", "com.example.Fancy"):
        assert isinstance(record({"op": op, "inputs": [[8, 8]], "dtype": "float16"}), Unknown)


def test_operators_without_a_rule_are_inferred_by_onnx():
    assert one("Transpose", [[2, 3, 4]], attrs={"perm": [2, 0, 1]}).elements == prod((2, 3, 4))
    assert one("Gather", [[1000, 64], [7]]).elements == 7 * 64


@given(st.permutations(["strides", "pads", "group"]))
def test_the_order_of_attributes_does_not_matter(order):
    attrs = {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 1}
    query = {"op": "Conv", "inputs": [[1, 8, 8, 8], [8, 8, 3, 3]], "dtype": "float16"}
    assert record({**query, "attrs": {name: attrs[name] for name in order}}) == record({**query, "attrs": attrs})


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("MatMul", [[0, 8], [8, 8]]),
        ("Attention", [[1, 8, 4, 64], [1, 8, 0, 64], [1, 8, 0, 64]]),
    ],
)
def test_nothing_is_multiplied_where_an_extent_is_zero(op, inputs):
    assert one(op, inputs).gemm is None


def test_kernels_are_kept():
    query = {"op": "MatMul", "inputs": [[17, 19], [19, 23]], "dtype": "float16"}
    assert record(query)[0] is record(json.loads(json.dumps(query)))[0]
    assert kernels_of.cache_info().maxsize
