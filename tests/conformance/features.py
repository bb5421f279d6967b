"""Handwritten models for what the backend suite lacks: one for each corner of the ONNX format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper
from suite import Case

F32, I64, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
LOW_TYPES = (
    "BFLOAT16 FLOAT16 FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ FLOAT8E8M0 FLOAT6E2M3 FLOAT6E3M2 "
    "FLOAT4E2M1 INT4 UINT4 INT2 UINT2 COMPLEX64 COMPLEX128"
).split()

node, info, make_graph = helper.make_node, helper.make_tensor_value_info, helper.make_graph


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
    opsets: dict[str, int] | None = None,
    ir_version: int = 10,
    **fields: object,
) -> ModelProto:
    graph = make_graph(nodes, "g", inputs, outputs, initializers)
    entries = [helper.make_opsetid(domain, version) for domain, version in ({"": 21} | (opsets or {})).items()]
    return helper.make_model(graph, opset_imports=entries, ir_version=ir_version, **fields)


def unary(kind: str = "Relu", domain: str = "", **attributes: object) -> ModelProto:
    opsets = {domain: 1} if domain else None
    return model([node(kind, ["x"], ["y"], domain=domain, **attributes)], [info("x", F32, ["n"])], [Y], opsets=opsets)


def control() -> Iterator[tuple[str, ModelProto]]:
    yield "if", model([_if("c", "x", "y")], [info("c", BOOL, []), X], [Y])
    yield "loop", model([_loop(_add("a", "x", "s"))], [X], [Y], LOOP)
    yield "loop around if", model([_loop(_if("go", "x", "s"), _add("s", "w", "r"))], [X], [Y], LOOP)
    body = make_graph(
        [node("Add", ["a", "e"], ["p"]), node("Mul", ["p", "w"], ["s"]), node("Identity", ["s"], ["o"])],
        "scan", [info("a", F32, [3]), info("e", F32, [3])], [info("s", F32, [3]), info("o", F32, [3])],
    )  # fmt: skip
    scan = node("Scan", ["x", "m"], ["y", "all"], body=body, num_scan_inputs=1)
    yield "scan", model([scan], [X, info("m", F32, [4, 3])], [Y, info("all", F32, [4, 3])], [W])


def functions() -> Iterator[tuple[str, ModelProto]]:
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope"))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    inner = helper.make_function("local", "inner", ["a"], ["b"], [leaky], opsets, ["slope"])
    default = helper.make_attribute("slope", 0.25)
    given = helper.make_function("local", "given", ["a"], ["b"], [leaky], opsets, attribute_protos=[default])
    outer = helper.make_function(
        "local", "outer", ["a"], ["b"],
        [node("inner", ["a"], ["t"], domain="local", slope=0.5), node("given", ["t"], ["b"], domain="local")], opsets,
    )  # fmt: skip
    calls = [node("outer", ["x"], ["t"], domain="local"), node("inner", ["t"], ["y"], domain="local", slope=0.1)]
    yield "calls, references, defaults", model(calls, [X], [Y], (), {"local": 1}, functions=[inner, given, outer])
    one = helper.make_function("local", "f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], opsets, overload="one")
    two = helper.make_function("local", "f", ["a"], ["b"], [node("Neg", ["a"], ["b"])], opsets, overload="two")
    calls = [node("f", ["x"], ["t"], domain="local", overload="two"), node("f", ["t"], ["y"], domain="local")]
    calls[1].overload = "one"
    yield "overloads", model(calls, [X], [Y], (), {"local": 1}, functions=[one, two])


def stores() -> Iterator[tuple[str, ModelProto]]:
    """Sparse, string, empty, scalar and listed tensors."""
    values = helper.make_tensor("w", F32, [2], [1.5, -2.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", I64, [2], [0, 2]), [3])
    proto = model([node("Add", ["x", "w"], ["y"])], [X], [Y])
    proto.graph.sparse_initializer.append(sparse)
    yield "sparse initialiser", proto
    constant = node("Constant", [], ["w"], sparse_value=sparse)
    yield "sparse constant", model([constant, node("Add", ["x", "w"], ["y"])], [X], [Y])
    text = helper.make_tensor("t", STRING, [3], [b"a", "ü".encode(), b""])
    strings = [node("Equal", ["s", "t"], ["y"]), node("Constant", [], ["u"], value_strings=["p", "q"])]
    ports = [info("y", BOOL, [3]), info("u", STRING, [2])]
    yield "strings", model(strings, [info("s", STRING, [3])], ports, [text])
    empty = helper.make_tensor("e", F32, [0, 3], [])
    yield "empty and scalar", model([node("Add", ["e", "k"], ["y"])], [], [info("y", F32, [0, 3])], [empty, K])
    yield "initialiser that is an input", model([node("Add", ["x", "w"], ["y"])], [X, info("w", F32, [3])], [Y], [W])
    old = model([node("Add", ["x", "w"], ["y"])], [X, info("w", F32, [3])], [Y], [W], {"": 8}, ir_version=3)
    yield "IR version 3", old


def types() -> Iterator[tuple[str, ModelProto]]:
    """Element types that NumPy lacks, as raw bytes and as numbers."""
    for name in LOW_TYPES:
        number = TensorProto.DataType.Value(name)
        array = np.array([1, 0, 1], helper.tensor_dtype_to_np_dtype(number))
        raw = onnx.numpy_helper.from_array(array, "w")
        version = 25 if "2" in name.removeprefix("FLOAT")[:4] or "6E" in name else 23
        opsets, ports = {"": version}, [info("y", number, [3])]
        yield f"{name.lower()}, raw", model([node("Identity", ["w"], ["y"])], [], ports, [raw], opsets, 13)
        if name not in ("FLOAT8E8M0", "FLOAT6E2M3", "FLOAT6E3M2"):
            listed = helper.make_tensor("w", number, [3], array)
            yield f"{name.lower()}, listed", model([node("Identity", ["w"], ["y"])], [], ports, [listed], opsets, 13)


def ports() -> Iterator[tuple[str, ModelProto]]:
    """Inputs and outputs that are no tensors, and places left empty."""
    tensor = helper.make_tensor_type_proto(F32, [3])
    sequence = helper.make_sequence_type_proto(tensor)
    optional = helper.make_optional_type_proto(sequence)
    told = lambda name, kind: ValueInfoProto(name=name, type=kind)
    at = [node("SequenceAt", ["s", "i"], ["y"])]
    yield "sequence", model(at, [told("s", sequence), info("i", I64, [])], [Y])
    has = [node("OptionalHasElement", ["o"], ["y"])]
    yield "optional sequence", model(has, [told("o", optional)], [info("y", BOOL, [])])
    mapped = TypeProto()
    mapped.map_type.key_type = I64
    mapped.map_type.value_type.CopyFrom(tensor)
    yield "map", model([node("Identity", ["m"], ["n"])], [told("m", mapped)], [told("n", mapped)])
    sparse = TypeProto()
    sparse.sparse_tensor_type.elem_type = F32
    yield "sparse tensor", model([node("Identity", ["m"], ["n"])], [told("m", sparse)], [told("n", sparse)])
    left_out = [node("Clip", ["x", "", "k"], ["t"]), node("Dropout", ["t"], ["y", ""])]
    yield "inputs and outputs left out", model(left_out, [X], [Y], [K])
    yield "nodes without a name, unused values", model([node("Split", ["x"], ["y", "z"], num_outputs=2)], [X], [Y])
    yield "no node at all", model([], [X], [X])


def extras() -> Iterator[tuple[str, ModelProto]]:
    """What describes a model without being part of the computation."""
    yield "metadata, documentation", _described()
    trained = unary()
    step = trained.training_info.add()
    step.initialization.CopyFrom(make_graph([node("Constant", [], ["k"], value_float=1.0)], "init", [], [K_INFO]))
    step.algorithm.CopyFrom(make_graph([node("Neg", ["x"], ["k"])], "algorithm", [X], [K_INFO]))
    step.update_binding.add(key="w", value="k")
    yield "training", trained
    quantized = unary()
    note = quantized.graph.quantization_annotation.add(tensor_name="x")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    yield "quantisation annotation", quantized
    yield "devices", _sharded()
    yield "custom domain", unary("Secret", "com.example", level=3, names=["a", "b"], blob=b"\xff\0")
    yield "operator of onnxruntime", unary("Gelu", "com.microsoft")
    yield "unknown fields", _extended()


def _described() -> ModelProto:
    proto = model([_if("c", "x", "y")], [info("c", BOOL, []), X], [Y], [W])
    function = helper.make_function("local", "f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], proto.opset_import)
    proto.functions.append(function)
    proto.graph.value_info.add(name="unheard of")
    proto.graph.input[1].type.denotation = "TENSOR"
    proto.graph.input[1].type.tensor_type.shape.dim[0].denotation = "DATA_CHANNEL"
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "p", "1", "d", 7
    branch = proto.graph.node[0].attribute[0]
    messages = [proto, proto.graph, proto.graph.node[0], proto.graph.input[0], proto.graph.initializer[0]]
    messages += [branch.g, branch.g.node[0], function, proto.functions[0].node[0], proto.graph.value_info[0]]
    for number, message in enumerate(messages):
        message.doc_string = f"text {number}"
        message.metadata_props.add(key=f"key {number}", value="value")
    branch.doc_string = "a branch"
    return proto


def _sharded() -> ModelProto:
    proto = unary()
    proto.ir_version = 11
    proto.configuration.add(name="pair", num_devices=2, device=["a", "b"])
    placed = proto.graph.node[0].device_configurations.add(configuration_id="pair", pipeline_stage=1)
    placed.sharding_spec.add(tensor_name="x", device=[0, 1])
    return proto


def _extended() -> ModelProto:
    """Fields with numbers no release has used, in every kind of message."""
    proto = _described()
    fresh = b"\xfa\x3f\x05later"  # field 1023, five bytes
    branch = proto.graph.node[0].attribute[0]
    messages = [branch.g.node[0], branch, proto.graph.node[0], proto.graph.input[0], proto.graph.initializer[0]]
    for message in (*messages, proto.graph, proto.functions[0], proto.opset_import[0], proto):
        message.MergeFromString(fresh)
    return proto


def _if(condition: str, read: str, made: str) -> NodeProto:
    """Both branches read a value from outside, one through a second If."""
    port = lambda name: [info(name, F32, None)]
    leaf = lambda kind: make_graph([node(kind, [read], [f"{kind}.{made}"])], kind, [], port(f"{kind}.{made}"))
    nested = node("If", [condition], ["nested"], then_branch=leaf("Abs"), else_branch=leaf("Exp"))
    both = make_graph([nested], "both", [], port("nested"))
    held = helper.make_tensor("held", F32, [], [3.0])
    other = make_graph([node("Mul", [read, "held"], ["other"])], "other", [], port("other"), [held])
    return node("If", [condition], [made], then_branch=both, else_branch=other)


def _add(first: str, second: str, made: str) -> NodeProto:
    return node("Add", [first, second], [made])


def _loop(*inside: NodeProto) -> NodeProto:
    """Three rounds from `w`; the body ends with the last output of `inside` and may read everything outside."""
    nodes = [node("Identity", ["go"], ["on"]), *inside]
    taken = [info("i", I64, []), info("go", BOOL, []), info("a", F32, None)]
    given = [info("on", BOOL, []), info(inside[-1].output[0], F32, None)]
    return node("Loop", ["count", "yes", "w"], ["y"], body=make_graph(nodes, "body", taken, given))


X, Y, K_INFO = info("x", F32, [3]), info("y", F32, None), info("k", F32, None)
W = helper.make_tensor("w", F32, [3], [0.5, -1.0, float("nan")])
K = helper.make_tensor("k", F32, [], [6.0])
LOOP = (helper.make_tensor("count", I64, [], [3]), helper.make_tensor("yes", BOOL, [], [True]), W)

GROUPS: dict[str, Callable[[], Iterator[tuple[str, ModelProto]]]] = {
    "control flow with captures": control,
    "local functions": functions,
    "sparse, string, empty tensors": stores,
    "element types": types,
    "sequence, optional, map, left out": ports,
    "metadata, training, devices, custom": extras,
}


def cases() -> tuple[Case, ...]:
    return tuple(Case(f"{group}: {name}", group, proto) for group, make in GROUPS.items() for name, proto in make())
