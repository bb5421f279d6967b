"""Models made to hang, blow up or crash a reader, each with a word of the refusal; '' where reading it is harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper

from eopt.ir import wire

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
node, info = helper.make_node, helper.make_tensor_value_info
OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("d", 1)]


def model(*nodes: NodeProto, functions: tuple[FunctionProto, ...] = (), weights: tuple[TensorProto, ...] = ()) -> bytes:
    graph = helper.make_graph(list(nodes), "g", [info("x", F32, [2])], [info("y", F32, None)], list(weights))
    made = helper.make_model(graph, opset_imports=OPSETS, functions=list(functions), ir_version=10)
    return made.SerializeToString()


def function(name: str, *nodes: NodeProto) -> FunctionProto:
    return helper.make_function("d", name, ["a"], ["b"], list(nodes), OPSETS)


def call(name: str, read: str = "a", made: str = "b") -> NodeProto:
    return node(name, [read], [made], domain="d")


def functions() -> Iterator[tuple[str, bytes, str]]:
    start = call("f0", "x", "y")
    yield "calls itself", model(start, functions=(function("f0", call("f0")),)), "calls itself"
    pair = (function("f0", call("f1")), function("f1", call("f0")))
    yield "call each other", model(start, functions=pair), "calls itself"
    chain = [function(f"f{n}", call(f"f{n + 1}")) for n in range(3000)] + [
        function("f3000", node("Relu", ["a"], ["b"]))
    ]
    yield "calls 3000 deep", model(start, functions=tuple(chain)), "deeper than"
    laughs = [function(f"f{n}", call(f"f{n + 1}", "a", "c"), call(f"f{n + 1}", "c")) for n in range(60)]
    last = function("f60", node("Relu", ["a"], ["b"]))
    yield "billion laughs", model(start, functions=(*laughs, last)), "expand to more"


def equations() -> Iterator[tuple[str, bytes, str]]:
    for text in ("......->a", "a.->a", "...a...->a", "." * 10, "a" * 100000):
        yield f"equation {text[:12]}", model(node("Einsum", ["x"], ["y"], equation=text)), "no equation"
    inner = node("Einsum", ["a"], ["b"])
    inner.attribute.add(name="equation", type=3, ref_attr_name="e")
    outer = FunctionProto(name="f0", domain="d", input=["a"], output=["b"], node=[inner], attribute=["e"])
    outer.opset_import.extend(OPSETS)
    by_name = node("f0", ["x"], ["y"], domain="d", e="......->a")
    yield "equation through a function", model(by_name, functions=(outer,)), "no equation"


def extents() -> Iterator[tuple[str, bytes, str]]:
    relu = node("Relu", ["x"], ["y"])
    for dims in ([2**62], [2**62, 2**62], [-1], [0, 2**62], [2**31, 2**31]):
        yield f"weight {dims}", model(relu, weights=(TensorProto(name="w", data_type=F32, dims=dims),)), "cannot be"
    short = TensorProto(name="w", data_type=F32, dims=[3], raw_data=b"1234")
    yield "too few bytes", model(relu, weights=(short,)), "holds 4 bytes"
    listed = TensorProto(name="w", data_type=F32, dims=[3], float_data=[1])
    yield "too few numbers", model(relu, weights=(listed,)), "holds 1 numbers"
    constant = node("Constant", [], ["y"], value=short)
    yield "too few bytes in a constant", model(constant), "holds 4 bytes"
    yield "a constant of another type", model(node("Constant", [], ["y"], value_ints="text")), "another type"
    yield "no such type", model(relu, weights=(TensorProto(name="w", data_type=999),)), "is unknown here"
    text = TensorProto(name="w", data_type=TensorProto.STRING, string_data=[b"\xff"], dims=[1])
    yield "text that is none", model(relu, weights=(text,)), "not UTF-8"
    wide = ModelProto.FromString(model(node("Slice", ["x", "s", "s"], ["y"])))
    wide.graph.input.append(info("s", I64, [2**40]))
    yield "an index of 2**40 axes", wide.SerializeToString(), ""
    big = helper.make_tensor("s", I64, [3], [2**40] * 3)
    yield "expanded without end", model(node("Expand", ["x", "s"], ["y"]), weights=(big,)), ""
    yield "split without end", model(node("Split", ["x"], ["y"], num_outputs=2**40)), "number of its outputs"
    yield "more pieces than said", model(node("Split", ["x"], ["y", "z", "u"], num_outputs=2)), "number of its outputs"


def encodings() -> Iterator[tuple[str, bytes, str]]:
    plain = model(node("Relu", ["x"], ["y"]))
    for name, path in {"subgraphs": [7], "types": [7, 11, 2], "functions": [25, 7, 5, 6]}.items():
        repeated = [4, 1] if name == "types" else [1, 5, 6]  # field numbers from the outside in
        inner = b""
        for number in reversed(path + repeated * 1000):
            inner = wire.tag(number) + wire.varint(len(inner)) + inner
        yield f"{name} 1000 deep", plain + inner, "cannot decode"
    name = plain.replace(b"Relu", b"Re\xff\xfe")
    yield "a name that is not UTF-8", name, "not UTF-8"
    yield "an endless number", plain + b"\x08" + b"\xff" * 11, "unfinished number"
    yield "a length beyond the end", plain + b"\x3a\xff\xff\xff\xff\x0f", "truncated"
    twice = ModelProto.FromString(plain)
    twice.graph.input.append(twice.graph.input[0])
    yield "an input twice", twice.SerializeToString(), "declared twice"
    versions = ModelProto.FromString(plain)
    versions.opset_import[0].version, versions.ir_version = 2**63 - 1, -(2**63)
    yield "absurd versions", versions.SerializeToString(), ""


GROUPS: tuple[Callable[[], Iterator[tuple[str, bytes, str]]], ...] = (functions, equations, extents, encodings)


def cases() -> list[tuple[str, bytes, str]]:
    return [case for group in GROUPS for case in group()]
