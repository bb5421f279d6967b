"""Cost queries as workloads that can be measured, and rows of the table from what was measured."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from eopt.backends.base import Unknown
from eopt.backends.harness.base import Timing, Workload
from eopt.backends.meters.base import EnergyReading
from eopt.backends.target import load
from eopt.costmodel import measured_rows
from eopt.costmodel.asked import whole_workload, workload_of
from eopt.ir.errors import InputError
from eopt.ir.text_parse import loads

PRODUCT = [[8, 64], [64, 32]]


def query(op, inputs, dtype="float32", **more):
    return {"op": op, "inputs": inputs, "dtype": dtype, **more}


def graph_of(row) -> onnx.GraphProto:
    found = workload_of(row)
    assert isinstance(found, Workload)
    model = onnx.load_from_string(found.onnx)
    onnx.checker.check_model(model, full_check=True)
    return model.graph


@pytest.mark.parametrize(
    ("row", "operator", "weights"),
    [
        (query("MatMul", PRODUCT), "MatMul", ["x1"]),
        (query("MatMul", [[2, 8, 64], [2, 64, 32]]), "MatMul", []),
        (query("MatMul", PRODUCT, "int8"), "MatMulInteger", ["x1"]),
        (query("Gemm", [*PRODUCT, [32]], attrs={"alpha": 0.5}), "Gemm", ["x1", "x2"]),
        (query("Conv", [[1, 8, 16, 16], [4, 8, 3, 3]], attrs={"pads": [1, 1, 1, 1]}), "Conv", ["x1"]),
        (query("Conv", [[1, 8, 16, 16], [4, 8, 3, 3]], "int8"), "ConvInteger", ["x1"]),
        (query("LayerNormalization", [[4, 8], [8], [8]]), "LayerNormalization", ["x1", "x2"]),
        (query("Gather", [[100, 8], [4, 5]]), "Gather", ["x0"]),
        (query("Add", [[4, 8], [4, 8]], "float16"), "Add", []),
        (query("Where", [[4], [4], [4]]), "Where", []),
        (query("Cast", [[4]], attrs={"to": "float16"}), "Cast", []),
        (query("RMSNormalization", [[4, 8], [8]]), "RMSNormalization", ["x1"]),
    ],
)
def test_a_query_becomes_one_node_and_what_models_hold_is_a_weight(row, operator, weights):
    graph = graph_of(row)
    assert [node.op_type for node in graph.node] == [operator]
    assert [weight.name for weight in graph.initializer] == weights


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (query("Reshape", [[8, 8], [1]]), "operand 1 is a value"),
        (query("Slice", [[8], [1], [1]]), "operand 1 is a value"),
        (query("MatMul", PRODUCT, phase="backward"), "forward phase"),
        (query("MatMul", PRODUCT, weight_dtype="int4"), "QDQ"),
        (query("MatMul", PRODUCT, math="tf32"), "tf32"),
        (query("AllReduce", [[8]]), "collectives"),
        (query("NoSuch", [[8]]), "no operator specification"),
        (query("Add", [[1 << 20, 1 << 10], [1]]), "bytes"),
    ],
)
def test_what_cannot_be_measured_has_a_reason(row, reason):
    found = workload_of(row)
    assert isinstance(found, Unknown)
    assert reason in found.reasons[0]


@pytest.mark.parametrize("row", [{}, query("MatMul", [[8, 64], [63, 32]]), query("Relu", [[8]], "float31")])
def test_a_malformed_query_is_refused(row):
    with pytest.raises(InputError):
        workload_of(row)


def test_what_is_executed_is_described_as_it_was_asked():
    row = query("Conv", [[1, 8, 16, 16], [4, 8, 3, 3]], attrs={"pads": [1, 1, 1, 1]})
    found, asked = measured_rows.described(workload_of(row)), measured_rows.asked(row)
    assert {name: found[name] for name in asked} == asked


def test_a_condition_is_not_the_type_of_an_operator():
    assert measured_rows.described(workload_of(query("Where", [[4], [4], [4]])))["dtype"] == "float32"


def test_a_whole_model_has_the_extents_it_is_asked_at():
    model = loads('model {"": 20}\ninput x: float32["n", 8]\ny: float32["n", 8] = Relu(x)\noutput y: float32["n", 8]\n')
    workload = whole_workload(model, {"n": 4}, "m")
    assert not workload.lone
    assert measured_rows.described(workload) == {
        "level": "model",
        "op": "Model",
        "inputs": [[4, 8]],
        "dtype": "float32",
    }
    with pytest.raises(InputError, match="give --bind"):
        whole_workload(model, {}, "m")


def test_copies_are_described_once():
    nodes = [helper.make_node("Relu", [f"x{at}"], [f"y{at}"]) for at in range(3)]
    ports = [[helper.make_tensor_value_info(f"{name}{at}", 1, [4]) for at in range(3)] for name in "xy"]
    proto = helper.make_model(helper.make_graph(nodes, "g", *ports))
    found = measured_rows.described(Workload("Relu", proto.SerializeToString(), copies=3))
    assert (found["level"], found["op"], found["inputs"]) == ("operator", "Relu", [[4]])


def test_energy_is_in_a_row_only_where_it_was_measured():
    what, timing = measured_rows.asked(query("Relu", [[8]])), Timing(1e-5, 0.01, 9, 100)
    reading = EnergyReading(2e-4, 1.9e-4, 2.1e-4, 1e-4, 20.0, 10.0, "package", 5, 1000, 2.0, False, ())
    common = load("nvidia-l4"), "torch", "torch 2", "m"
    without, metered = (measured_rows.row(what, timing, energy, *common) for energy in (Unknown(("none",)), reading))
    assert "energy_j" not in without
    assert (metered["energy_j"], metered["power_w"], metered["energy_scope"]) == (2e-4, 20.0, "package")
