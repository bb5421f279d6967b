"""Quantised linear layers in the compressed-tensors format: recovered from graphs, packed, written, read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from eopt.backends.checkpoint import files, linear, recover
from eopt.backends.checkpoint.linear import Activations, QuantisedLinear, Scheme
from eopt.backends.checkpoint.recover import NotCarried
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.ir.errors import InputError

K, N = 64, 6
RANDOM = np.random.default_rng(0)


def graph(nodes, constants, opset=21, domains=()):
    """A model `y = f(x)` on [2, K] inputs."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, N])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def qdq(kind, block, zero_points, transposed=False, scale_type=np.float32):
    """A product with a blocked or per-channel weight of an ONNX element type; `transposed` gives Gemm's transB."""
    low, high = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}[kind]
    blocks = -(-K // block) if block else 1
    integers = RANDOM.integers(low, high, (K, N)).astype(kind if "8" in kind else getattr(ml_dtypes, kind))
    scales = RANDOM.uniform(0.01, 0.1, (blocks, N)).astype(scale_type)
    zeros = RANDOM.integers(low, high, (blocks, N)).astype(integers.dtype)
    constants = {"q": integers, "s": scales, "z": zeros}
    if transposed:
        constants = {name: np.ascontiguousarray(array.T) for name, array in constants.items()}
    attributes = {"axis": int(transposed), "block_size": block} if block else {"axis": int(not transposed)}
    if not block:
        constants |= {name: constants[name].reshape(-1) for name in "sz"}
    if not zero_points:
        del constants["z"]
    unpack = helper.make_node("DequantizeLinear", list(constants), ["w"], **attributes)
    if transposed:
        return graph([unpack, helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], constants)
    return graph([unpack, helper.make_node("MatMul", ["x", "w"], ["y"])], constants)


def n_bits(bits, block, zero_points):
    blocks = -(-K // block)
    constants = {
        "q": RANDOM.integers(0, 256, (N, blocks, block * bits // 8)).astype(np.uint8),
        "s": RANDOM.uniform(0.01, 0.1, (N, blocks)).astype(np.float32),
    }
    if zero_points:
        constants["z"] = RANDOM.integers(0, 256, (N, -(-blocks * bits // 8))).astype(np.uint8)
    node = helper.make_node(
        "MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft", K=K, N=N, bits=bits, block_size=block
    )
    return graph([node], constants, domains=["com.microsoft"])


def float8(static):
    constants = {
        "q": RANDOM.normal(size=(K, N)).astype(ml_dtypes.float8_e4m3fn),
        "s": RANDOM.uniform(0.01, 0.1, N).astype(np.float32),
        "xs": np.float32(0.02),
        "xz": np.zeros((), ml_dtypes.float8_e4m3fn),
    }
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1)]
    if static:
        nodes.append(helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]))
        nodes.append(helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]))
    nodes.append(helper.make_node("MatMul", ["xd" if static else "x", "w"], ["y"]))
    return graph(nodes, constants)


def int8(activations):
    """Per-channel int8 with an input on an int8 or uint8 grid, or quantised as the model runs."""
    constants = {"q": RANDOM.integers(-127, 128, (K, N)).astype(np.int8), "s": np.full(N, 0.01, np.float32)}
    constants |= {"xs": np.float32(0.02), "xz": {"int8": np.int8(0), "uint8": np.uint8(140)}.get(activations, 0)}
    constants["xz"] = np.asarray(constants["xz"])
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1)]
    if activations == "dynamic":
        constants = {name: constants[name] for name in "qs"}
        nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]))
    else:
        nodes.append(helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]))
    nodes.append(helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]))
    nodes.append(helper.make_node("MatMul", ["xd", "w"], ["y"]))
    return graph(nodes, constants)


def recovered(proto) -> QuantisedLinear:
    model = onnx_io.from_proto(proto)
    [product] = [place.op for place in recover.places(model).values() if place.op.op in recover.LINEAR]
    found = recover.quantised(model, product)
    assert found is not None
    return found


def weight_by_reference(proto):
    """[n, k] as the ONNX reference evaluator dequantises it."""
    unpack = next(node for node in proto.graph.node if node.output[0] == "w")
    product = proto.graph.node[-1]
    value = ReferenceEvaluator(proto).run(["w"], {"x": np.zeros((2, K), np.float32)})[0]
    assert unpack.op_type == "DequantizeLinear"
    return value if product.op_type == "Gemm" else value.T


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("block", [0, 16, 32, 64])
@pytest.mark.parametrize("kind", ["int4", "uint4", "int8", "uint8"])
def test_dequantised_as_onnx_dequantises(kind, block, zero_points, transposed):
    proto = qdq(kind, block, zero_points, transposed)
    found = recovered(proto)
    assert np.array_equal(found.dequantised(), weight_by_reference(proto))
    assert found.scheme.bits == int(kind[-1])
    assert found.scheme.group == (block if block in (16, 32) else None), "one group is one scale per output"
    assert found.scheme.symmetric == (not zero_points and kind.startswith("int"))


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "block"), [(4, 16), (4, 32), (8, 32), (4, 64)])
def test_n_bits_is_the_weight_onnxruntime_multiplies_with(bits, block, zero_points):
    proto = n_bits(bits, block, zero_points)
    found = recovered(proto)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = K
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = K
    [run] = OrtRunner().run(onnx_io.from_proto(proto), [{"x": np.eye(K, dtype=np.float32)}])
    # With unit vectors every sum has one term that is not 0, so no rounding is left to differ in.
    assert np.array_equal(found.dequantised(), run["y"].T)


@pytest.mark.parametrize("static", [False, True])
def test_float8(static):
    proto = float8(static)
    found = recovered(proto)
    assert np.array_equal(found.dequantised(), weight_by_reference(proto))
    stored = linear.tensors(found)
    assert stored["weight"].dtype == ml_dtypes.float8_e4m3fn and found.scheme.format == "float-quantized"
    assert ("input_scale" in stored) == static
    assert found.scheme.activations is (Activations.STATIC if static else Activations.FLOAT)


@pytest.mark.parametrize(
    ("activations", "expected", "offset"),
    [("int8", Activations.STATIC, 0), ("uint8", Activations.OFFSET, 12), ("dynamic", Activations.DYNAMIC, 0)],
)
def test_int8_inputs(activations, expected, offset):
    found = recovered(int8(activations))
    assert found.scheme == Scheme(8, activations=expected) and found.scheme.format == "int-quantized"
    assert found.input_zero_point == offset, "140 of 0 … 255 is 12 of -128 … 127"
    assert ("input_zero_point" in linear.tensors(found)) == bool(offset)


def test_what_the_format_cannot_hold_says_why():
    short = qdq("int4", 48, False)  # 64 features in groups of 48
    with pytest.raises(NotCarried, match="no multiple of the group size 48"):
        recovered(short)
    along = qdq("int8", 0, False)
    along.graph.node[0].attribute[0].i = 0
    along.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones(K, np.float32), "s"))
    with pytest.raises(NotCarried, match="along the input features"):
        recovered(along)


@given(
    st.sampled_from([4, 8]),
    st.integers(1, 5),
    st.integers(1, 41),
    st.integers(0, 2**32 - 1),
)
def test_packed_words_hold_every_integer_at_its_place(bits, rows, columns, seed):
    half = 1 << bits - 1
    values = np.random.default_rng(seed).integers(-half, half, (rows, columns)).astype(np.int8)
    words = linear.packed(values, bits)
    per_word = 32 // bits
    assert words.shape == (rows, -(-columns // per_word))
    for column in range(columns):  # the definition: element i lies at bit i * bits of its row, shifted to unsigned
        word = words[:, column // per_word].view(np.uint32)
        found = (word >> np.uint32(column % per_word * bits)) & np.uint32(2 * half - 1)
        assert np.array_equal(found.astype(np.int64) - half, values[:, column])


def test_groups_of_schemes_name_their_layers():
    int4, int8_ = Scheme(4, group=32), Scheme(8, activations=Activations.DYNAMIC)
    one = linear.quantization_config({"a": int4, "b": int4}, ["lm_head"])
    assert one["format"] == "pack-quantized" and one["config_groups"]["group_0"]["targets"] == ["Linear"]
    assert one["config_groups"]["group_0"]["weights"]["group_size"] == 32 and one["ignore"] == ["lm_head"]
    two = linear.quantization_config({"a": int4, "b": int8_, "c": int4}, [])
    assert two["format"] == "mixed-precision"
    assert [group["targets"] for group in two["config_groups"].values()] == [["a", "c"], ["b"]]
    assert two["config_groups"]["group_1"]["format"] == "int-quantized"


def as_entries(arrays):
    return [files.Entry({n: (a.dtype, a.shape)}, lambda n=n, a=a: {n: a}) for n, a in arrays.items()]


@pytest.mark.parametrize("shard_bytes", [1, 40, 10**9])
def test_tensors_come_back_from_one_file_or_many(tmp_path: Path, shard_bytes: int):
    arrays = {
        "odd": np.arange(3, dtype=np.int8),
        "half": RANDOM.normal(size=(5, 7)).astype(ml_dtypes.bfloat16),
        "eighth": RANDOM.normal(size=(4, 4)).astype(ml_dtypes.float8_e4m3fn),
        "shape": np.array([3, 4]),
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 4), np.float32),
    }
    files.write(tmp_path, as_entries({name: np.asarray(array) for name, array in arrays.items()}), shard_bytes)
    read = files.opened(tmp_path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].shape == np.shape(array) and read[name].array().tobytes() == np.asarray(array).tobytes()
    assert (tmp_path / files.INDEX).exists() == (shard_bytes < 10**9)
    if shard_bytes == 10**9:  # nothing but the last tensors may be out of line: readers map them
        places = [(stored.offset, stored.dtype.itemsize) for stored in read.values()]
        assert all(offset % size == 0 for offset, size in places)


def index(folder: Path, names) -> None:
    (folder / files.INDEX).write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "x.bin", ".x.safetensors", 3]
)
def test_an_index_stays_in_its_folder(tmp_path: Path, name):
    index(tmp_path, {"w": name})
    with pytest.raises(InputError, match="plain name"):
        files.opened(tmp_path)


def test_damaged_folders_say_so(tmp_path: Path):
    with pytest.raises(InputError, match="neither"):
        files.opened(tmp_path)
    (tmp_path / files.INDEX).write_text("[1]")
    with pytest.raises(InputError, match="weight_map"):
        files.opened(tmp_path)
    files.write(tmp_path, as_entries({"a": np.ones(4)}))
    (tmp_path / files.SINGLE).rename(tmp_path / "part.safetensors")
    index(tmp_path, {"a": "part.safetensors", "b": "part.safetensors"})
    with pytest.raises(InputError, match=r"'b' is not in part\.safetensors"):
        files.opened(tmp_path)
    whole = (tmp_path / "part.safetensors").read_bytes()
    for broken in (whole[:-8], whole[:4], struct.pack("<Q", 1 << 40) + whole[8:], b""):
        (tmp_path / files.SINGLE).write_bytes(broken)
        with pytest.raises(InputError, match="safetensors"):
            files.opened(tmp_path)
