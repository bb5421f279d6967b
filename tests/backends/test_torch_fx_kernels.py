"""Which kernel an operator gets, why, and that it computes what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from eopt.backends import detect
from eopt.backends.ort import OrtRunner
from eopt.backends.torch_fx import select
from eopt.backends.torch_fx.capability import Capabilities
from eopt.ir import onnx_io

RNG = np.random.default_rng(0)
ALL = Capabilities("test", None, None, lambda weight: None)
NOTHING = Capabilities("test", "no int8", "no float8", lambda weight: "no sparse unit")
slow = pytest.mark.slow


def proto(nodes, inputs, outputs, opset=21, **weights):
    infos = [[helper.make_tensor_value_info(*item) for item in ports] for ports in (inputs, outputs)]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph([helper.make_node(*node[:3], **node[3]) for node in nodes], "g", *infos, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def both(model, feeds):
    """The results of onnxruntime and of torch."""
    torch = pytest.importorskip("torch")
    from eopt.backends.torch_fx import lower

    ours = lower(onnx_io.from_proto(model))
    session = OrtRunner().session(onnx_io.from_proto(model))
    arguments = [torch.from_numpy(feeds[value.name]) for value in session.get_inputs()]
    return session.run(None, feeds), [result.numpy() for result in ours(*arguments)], ours.meta["kernels"]


def quantized(a=np.int8, per_channel=True, gemm=False, weight_zero=0, depth=48):
    """x -> Q -> DQ -> product with DQ(w) -> y."""
    weight = RNG.integers(-127, 128, (depth, 24)).astype(np.int8)
    scale = RNG.uniform(0.01, 0.02, 24 if per_channel else ()).astype("f")
    op = ("Gemm", ["d", "v", "b"], ["y"], {}) if gemm else ("MatMul", ["d", "v"], ["y"], {})
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
        ("DequantizeLinear", ["w", "t", "o"], ["v"], {"axis": 1}),
        op,
    ]
    extra = {"b": RNG.standard_normal(24).astype("f")} if gemm else {}
    return proto(
        nodes, [("x", 1, ["n", depth])], [("y", 1, ["n", 24])], w=weight, t=scale,
        o=np.full(scale.shape, weight_zero, np.int8), s=np.array(0.03, "f"), z=np.array(3, a), **extra,
    )  # fmt: skip


def chosen(model, can=ALL, trainable=False, kind=("MatMul", "Gemm", "Attention")):
    steps = select.plan(onnx_io.from_proto(model), can, trainable)
    return next(step.choice for step in steps if step.op.op in kind)


def test_int8_groups_are_found():
    assert chosen(quantized()).kernel == "eopt.Int8Linear"
    assert chosen(quantized(gemm=True, a=np.uint8)).kernel == "eopt.Int8Linear"
    assert "refuses here: no int8" in chosen(quantized(), NOTHING).reason
    assert "no gradient" in chosen(quantized(), trainable=True).reason
    assert "leaves int8" in chosen(quantized(weight_zero=-3)).reason
    assert "leave int32" in chosen(quantized(depth=1 << 17)).reason


def test_what_the_kernel_replaces_is_not_lowered():
    from eopt.backends.torch_fx import steps

    model = onnx_io.from_proto(quantized())
    block = steps.of_model(model, select.plan(model, ALL, False))
    assert [step.op.op for step in block.steps] == ["QuantizeLinear", "MatMul"]


def float8(extent=32):
    weight = (RNG.standard_normal((extent, extent)) * 4).astype(TENSOR8)
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
        ("DequantizeLinear", ["w", "s", "z"], ["v"], {}),
        ("MatMul", ["d", "v"], ["y"], {}),
    ]
    ports = [("x", 1, ["n", extent])], [("y", 1, ["n", extent])]
    return proto(nodes, *ports, w=weight, s=np.array(0.02, "f"), z=np.zeros((), TENSOR8))


TENSOR8 = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)


def test_float8_groups_are_found():
    assert chosen(float8()).kernel == "eopt.Float8Linear"
    assert "refuses here: no float8" in chosen(float8(), NOTHING).reason
    assert "multiples of 16" in chosen(float8(24)).reason


def sparse(weight):
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    nodes = [("MatMul", ["x", "w"], ["y"], {})]
    return proto(nodes, [("x", kind, ["n", weight.shape[0]])], [("y", kind, ["n", weight.shape[1]])], w=weight)


def two_of_four(dtype=np.float16):
    """Along the contraction, the first axis of a MatMul's weight."""
    weight = RNG.standard_normal((128, 64)).astype(dtype)
    weight.reshape(32, 4, 64)[:, RNG.permutation(4)[:2]] = 0
    return weight


def test_two_of_four_is_a_pattern_along_the_contraction():
    weight = two_of_four()
    assert select.is_two_of_four(np.ascontiguousarray(weight.T))
    assert not select.is_two_of_four(weight)
    weight[:4, 0] = 1
    assert not select.is_two_of_four(np.ascontiguousarray(weight.T)), "one group of three"
    assert not select.is_two_of_four(np.zeros((4, 4), "f")), "nothing at all is no pattern"
    assert not select.is_two_of_four(np.zeros((4, 6), "f"))


def test_sparse_weights_go_to_the_sparse_unit_where_there_is_one():
    assert chosen(sparse(two_of_four())).kernel == "eopt.SparseLinear"
    assert "kept dense: no sparse unit" in chosen(sparse(two_of_four()), NOTHING).reason
    assert "16-bit floats" in chosen(sparse(two_of_four(np.float32))).reason
    assert "trainable" in chosen(sparse(two_of_four()), trainable=True).reason
    assert chosen(sparse(RNG.standard_normal((8, 8)).astype("f"))).reason == ""


def attention(opset=23, mask=True, **attributes):
    names = ["q", "k", "v", *(["m"] if mask else [])]
    shapes = [[2, 4, 6, 8], [2, 2, 10, 8], [2, 2, 10, 8], [6, 10]]
    inputs = [(name, 1, shape) for name, shape in zip(names, shapes, strict=False)]
    nodes = [("Attention", names, ["y"], attributes)]
    return proto(nodes, inputs, [("y", 1, [2, 4, 6, 8])], opset), dict(zip(names, shapes, strict=False))


def test_attention_is_written_out_only_where_it_must_be():
    assert "scaled_dot_product" in chosen(attention()[0]).reason
    assert chosen(attention(softcap=2.0)[0]).kernel == "eopt.ExplicitAttention"


@slow
@pytest.mark.parametrize("attributes", [{}, {"is_causal": 1}, {"scale": 0.3}, {"softcap": 2.0}])
@pytest.mark.parametrize("mask", [True, False])
def test_attention_with_grouped_queries(mask, attributes):
    model, shapes = attention(mask=mask, **attributes)
    feeds = {name: RNG.standard_normal(shape).astype("f") for name, shape in shapes.items()}
    (expected,), (actual,), _ = both(model, feeds)
    assert np.allclose(expected, actual, atol=1e-5), "float32 sums of 10 and 8 terms"


@slow
@pytest.mark.parametrize("a", [np.int8, np.uint8])
@pytest.mark.parametrize("b", [np.int8, np.uint8])
@pytest.mark.parametrize("shape", [(5, 37), (2, 3, 37), (40, 64), (1, 300)])
def test_integer_products_are_exact(a, b, shape):
    limits = np.iinfo(a), np.iinfo(b)
    left = RNG.integers(limits[0].min, limits[0].max + 1, shape).astype(a)
    right = RNG.integers(limits[1].min, limits[1].max + 1, (shape[-1], 11)).astype(b)
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in (a, b)]
    zeros = {"p": np.array(7, a), "r": np.array(3, b)}
    nodes = [("MatMulInteger", ["a", "b", "p", "r"], ["y"], {})]
    inputs = [("a", kinds[0], shape), ("b", kinds[1], right.shape)]
    wide = left.astype(np.int64) - 7, right.astype(np.int64) - 3
    model = proto(nodes, inputs, [("y", TensorProto.INT32, None)], **zeros)
    torch = pytest.importorskip("torch")
    from eopt.backends.torch_fx import lower

    (actual,) = lower(onnx_io.from_proto(model))(torch.from_numpy(left), torch.from_numpy(right))
    assert np.array_equal(actual.numpy(), wide[0] @ wide[1])
    if b is np.int8 and detect.saturates(detect.cpu_features()):
        return  # onnxruntime's own sums saturate on this CPU, and weights that are fed get no exact kernel
    if (a, b) != (np.int8, np.uint8):  # which onnxruntime's CPU kernel does not take
        (expected,), (again,), _ = both(model, {"a": left, "b": right})
        assert np.array_equal(expected, again)


@slow
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_requantised_products_are_exact(dtype):
    limits = np.iinfo(dtype)
    left, right = (RNG.integers(limits.min, limits.max + 1, shape).astype(dtype) for shape in ((33, 70), (70, 20)))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = ["a", "s", "p", "b", "t", "r", "u", "o"]
    parameters = {name: np.array(scale, "f") for name, scale in (("s", 0.01), ("t", 0.02), ("u", 0.7))}
    zeros = {name: np.array(zero, dtype) for name, zero in (("p", 5), ("r", 2), ("o", 9))}
    ports = [("a", kind, left.shape), ("b", kind, right.shape)], [("y", kind, None)]
    model = proto([("QLinearMatMul", inputs, ["y"], {})], *ports, **parameters, **zeros)
    (expected,), (actual,), _ = both(model, {"a": left, "b": right})
    assert np.array_equal(expected, actual)


@slow
@pytest.mark.parametrize("a", [np.int8, np.uint8])
@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_int8_groups_compute_the_same(a, gemm, per_channel):
    model = quantized(a, per_channel, gemm)
    feeds = {"x": RNG.standard_normal((19, 48)).astype("f")}
    (expected,), (actual,), kernels = both(model, feeds)
    assert any(choice.kernel == "eopt.Int8Linear" for choice in kernels.values())
    # the sums are exact here; onnxruntime may sum 48 dequantised float32 products
    assert np.allclose(expected, actual, rtol=0, atol=48 * 2**-24 * np.abs(expected).max())


@slow
def test_float8_groups_compute_the_same():
    feeds = {"x": RNG.standard_normal((19, 32)).astype("f")}
    (expected,), (actual,), kernels = both(float8(), feeds)
    choice = kernels["MatMul:y"]
    assert choice.kernel == "eopt.Float8Linear" or "refuses here" in choice.reason
    assert np.allclose(expected, actual, rtol=0, atol=32 * 2**-24 * np.abs(expected).max())


@slow
def test_every_choice_is_listed_under_the_operators_name():
    pytest.importorskip("torch")
    from eopt.backends.torch_fx import lower

    module = lower(onnx_io.from_proto(sparse(two_of_four())))
    ((label, choice),) = module.meta["kernels"].items()
    assert label == "MatMul:y"
    assert choice.reason.startswith("2:4 sparse, but kept dense")


@slow
def test_the_sparse_unit_on_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from eopt.backends.torch_fx import lower

    weight = two_of_four()
    module = lower(onnx_io.from_proto(sparse(weight)), "cuda")
    assert module.meta["kernels"]["MatMul:y"].kernel == "eopt.SparseLinear"
    x = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    expected = x.float() @ torch.from_numpy(weight).cuda().float()
    assert torch.allclose(module(x)[0].float(), expected, atol=0.1), "float16 results of order 10: units of 2^-7"


@slow
def test_int8_and_float8_on_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from eopt.backends.torch_fx import lower

    for model, extent in ((quantized(depth=45), 45), (float8(), 32)):
        x = torch.randn(5, extent)
        ours = onnx_io.from_proto(model)
        assert torch.allclose(lower(ours)(x)[0], lower(ours, "cuda")(x.cuda())[0].cpu(), atol=1e-3)
