"""The ONNX doors: lossless, mapped, atomic, and closed to hostile files."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from eopt.ir import onnx_io, onnx_out
from eopt.ir.errors import EoptError, InputError, OutputError
from eopt.ir.weights import SpanWeight, weight_of


def linear(name: str = "w", size: int = 64) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((size, size)).astype("f"), name)
    info = lambda value: helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", size])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", name], ["y"])], "g", [info("x")], [info("y")], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, doc_string="kept")


def saved(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_is_mapped_and_written_back_equal(tmp_path):
    path = saved(tmp_path / "m.onnx", linear())
    model = onnx_io.read(path)
    weight = model.weights["w"]
    assert isinstance(weight, SpanWeight)
    assert weight.raw().obj is weight.file.view.obj, "a view of the map, no copy"
    onnx_out.write(model, tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == onnx.load(path)


def test_a_rewritten_weight_is_written(tmp_path):
    model = onnx_io.read(saved(tmp_path / "m.onnx", linear())).with_weights({"w": np.eye(64, dtype="f")})
    onnx_out.write(model, tmp_path / "out.onnx")
    assert np.array_equal(onnx_io.read(tmp_path / "out.onnx").weights.array("w"), np.eye(64))


def test_equal_content_has_one_digest(tmp_path):
    mapped = onnx_io.read(saved(tmp_path / "m.onnx", linear())).weights
    inline = onnx_io.from_proto(linear()).weights
    made = inline.updated({"w": weight_of(np.array(inline.array("w")))})
    assert mapped.digest("w") == inline.digest("w") == made.digest("w")


def external(folder: Path, location: str, **entries: object) -> Path:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    for key, value in entries.items():
        weight.external_data.add(key=key, value=str(value))
    model = linear()
    model.graph.initializer[0].CopyFrom(weight)
    return saved(folder / "m.onnx", model)


def test_external_data_round_trips(tmp_path):
    values = np.random.default_rng(1).standard_normal((64, 64)).astype("f")
    (tmp_path / "w.bin").write_bytes(b"\0" * 16 + values.tobytes())
    path = external(tmp_path, "w.bin", offset=16, length=values.nbytes)
    model = onnx_io.read(path)
    assert np.array_equal(model.weights.array("w"), values)
    assert onnx_out.to_proto(model) == onnx.load(path, load_external_data=False)
    onnx_out.write(model, tmp_path / "whole.onnx")
    assert np.array_equal(onnx_io.read(tmp_path / "whole.onnx").weights.array("w"), values)


def nested(folder: Path, location: str) -> Path:
    """A weight in a subgraph and one in a constant, both in a file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 2], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    made = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2, 2])
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["r"])], "branch", [], [made], [weight])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    nodes.append(helper.make_node("Constant", [], ["k"], value=weight))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "yk"]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])], ports)
    return saved(folder / "m.onnx", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


def test_external_data_of_subgraphs_and_attributes_is_taken_in(tmp_path):
    values = np.arange(4, dtype="f")
    (tmp_path / "w.bin").write_bytes(values.tobytes())
    (tmp_path / "elsewhere").mkdir()
    onnx_out.write(onnx_io.read(nested(tmp_path, "w.bin")), tmp_path / "elsewhere/out.onnx")
    written = onnx.load(tmp_path / "elsewhere/out.onnx", load_external_data=False)
    assert written.graph.node[0].attribute[0].g.initializer[0].raw_data == values.tobytes()
    assert written.graph.node[1].attribute[0].t.raw_data == values.tobytes()
    with pytest.raises(InputError, match="must be a plain path inside"):
        onnx_io.read(nested(tmp_path, "../w.bin"))


def test_raw_and_external_data_at_once_are_refused(tmp_path):
    path = external(tmp_path, "w.bin")
    model = ModelProto.FromString(path.read_bytes())
    model.graph.initializer[0].raw_data = bytes(64 * 64 * 4)
    with pytest.raises(InputError, match="both raw data and external data"):
        onnx_io.read(saved(path, model))


def test_a_changed_operator_keeps_what_the_tree_does_not_know():
    proto = linear()
    proto.graph.node[0].doc_string, proto.graph.node[0].overload = "why", "one"
    model = onnx_io.from_proto(proto)
    (op,) = model.leaves()
    renamed = replace(model, root=replace(model.root, children=(replace(op, name="new"),)))
    (node,) = onnx_out.to_proto(renamed).graph.node
    assert (node.name, node.doc_string, node.overload) == ("new", "why", "one")


def test_a_declaration_that_contradicts_a_weight_survives():
    proto = linear()
    proto.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["a", "b"]))
    model = onnx_io.from_proto(proto)
    assert model.value("w").shape == (64, 64)
    assert onnx_out.to_proto(model) == proto


def test_a_negative_extent_is_unknown():
    proto = linear()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model = onnx_io.from_proto(proto)
    assert model.inputs[0].shape == ("x.0", 64)
    assert onnx_out.to_proto(model) == proto


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("/etc/passwd", {}, "must be a plain path inside"),
        ("../w.bin", {}, "must be a plain path inside"),
        ("a/../../w.bin", {}, "must be a plain path inside"),
        ("C:\\w.bin", {}, "must be a plain path inside"),
        ("", {}, "must be a plain path inside"),
        ("link.bin", {}, "is a link"),
        ("gone.bin", {}, "is missing"),
        ("w.bin", {"offset": 4}, "beyond the end"),
        ("w.bin", {"length": 8}, "holds 8 bytes"),
        ("w.bin", {"offset": -4}, "is not a number"),
        ("w.bin", {"offset": 10**30}, "is not a number"),
    ],
)
def test_external_data_stays_inside(tmp_path, location, entries, message):
    (tmp_path / "w.bin").write_bytes(bytes(64 * 64 * 4))
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(InputError, match=r"m\.onnx: initializer 'w'.*") as caught:
        onnx_io.read(external(tmp_path, location, **entries))
    assert message in str(caught.value)


def test_above_the_limit_weights_go_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_out, "SINGLE_FILE_BYTES", 1000)
    model = onnx_io.from_proto(linear())
    model = model.with_weights({"w": model.weights.array("w")})
    onnx_out.write(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < 1000
    again = onnx_io.read(tmp_path / "m.onnx")
    assert np.array_equal(again.weights.array("w"), model.weights.array("w"))


def test_truncated_files_end_in_one_error(tmp_path):
    data = linear().SerializeToString()
    for end in range(0, len(data), 97):
        path = tmp_path / "cut.onnx"
        path.write_bytes(data[:end])
        with pytest.raises(EoptError) as caught:
            onnx_io.read(path)
        assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_random_bytes_never_raise_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(EoptError):
        onnx_io.read(path)


@given(st.data())
@settings(max_examples=100)
def test_flipped_bytes_never_raise_anything_else(tmp_path_factory, data):
    encoded = bytearray(linear(size=4).SerializeToString())
    for _ in range(3):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "x.onnx"
    path.write_bytes(bytes(encoded))
    try:
        onnx_io.read(path)
    except EoptError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "defined twice"),
        (lambda m: m.graph.node.append(m.graph.node[0]), "already has a producer"),
        (lambda m: m.graph.input.append(m.graph.input[0]), "declared twice"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "ghost"), "reads 'ghost' before"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "y"), "has a cycle"),
        (lambda m: m.ClearField("opset_import"), "no opset_import"),
        (lambda m: m.ClearField("graph"), "no graph"),
    ],
)
def test_malformed_graphs(change, message):
    model = linear()
    change(model)
    with pytest.raises(EoptError, match=message):
        onnx_io.from_proto(model)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, failure):
    def fail(descriptor: int) -> None:
        raise failure

    path = tmp_path / "m.onnx"
    path.write_text("previous")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        onnx_out.write(onnx_io.from_proto(linear()), path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.onnx", "previous")]
