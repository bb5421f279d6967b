"""The EnergAIzer adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.energaizer import ANOMALOUS, SOURCE
from eopt.ir.errors import InputError

pd = pytest.importorskip("pandas")

DATA = os.environ.get("EOPT_DATA")
HEAD = "workload,energy,time,avg_freq,temp\n"
PRODUCT = {"precM": "bf16", "precA": "bf16", "useTensorCore": True}
VECTOR = {"dim": 48, "prec": "bf16"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("nvml", "workloads/all"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a10", "a100", "dvfs"):
        (tmp_path / "nvml" / f"{name}.csv").write_text(HEAD)
    return tmp_path


def measured(folder: Path, file: str, name: str) -> Any:
    (folder / "nvml" / f"{file}.csv").write_text(f"{HEAD}{name},3.0,20.0,899.5,60\n")
    listed(folder, "tiny_pbf16_b1", [VECTOR | {"op": "relu"}, ["elementwise"]])
    return SOURCE.load(folder).rows


def listed(folder: Path, key: str, *operators: list[Any]) -> list[dict[str, Any]]:
    (folder / "workloads/all" / f"{key}.json").write_text(json.dumps(operators))
    return SOURCE.load(folder).workloads.to_dict("records")


def test_a_run_in_seconds_joules_and_hertz(folder):
    (row,) = measured(folder, "a10", "vit_large-2_pfp32_b16_freq900_iter25.csv").to_dict("records")
    assert (row["device"], row["workload"], row["batch"]) == ("nvidia-a10", "vit_large-2_pfp32_b16", 16)
    assert (row["dtype"], row["phase"], row["energy_scope"]) == ("float32", "forward", "board")
    assert row["latency_s"] == pytest.approx(0.02)
    assert row["power_w"] == pytest.approx(150)
    assert row["clock_hz"] == pytest.approx(899.5e6)


def test_the_key_is_that_of_the_operator_list_without_attention_and_clock(folder):
    name = "opt_1p3b_pbf16_b2_s128_modeprefill_attneager_freq1230_iter9.csv"
    assert measured(folder, "dvfs", name)["workload"].tolist() == ["opt_1p3b_pbf16_b2_s128_modeprefill"]
    assert listed(folder, "opt_1p3b_pbf16_b2_freq900", [VECTOR | {"op": "relu"}, ["elementwise"]])[0]["workload"] == (
        "opt_1p3b_pbf16_b2"
    )


@pytest.mark.parametrize(("file", "key"), [(file, key) for file, keys in ANOMALOUS.items() for key in sorted(keys)])
def test_frozen_exclusions_are_left_out(folder, file, key):
    assert measured(folder, file, f"{key}_attneager_freq900_iter9.csv").empty


def test_a_name_that_is_no_workload_is_refused(folder):
    with pytest.raises(InputError, match="notes"):
        measured(folder, "a10", "notes.csv")


def test_weights_are_the_second_operand_whatever_the_layout(folder):
    product = [{"batch": 1, "dimM": 32, "dimN": 5, "dimK": 16, **PRODUCT}, ["gemm", "tc", "bf16_bf16"]]
    (row,) = listed(folder, "bert_pbf16_b1", product)
    assert row["inputs"] == [[5, 16], [16, 32]]
    rows = {row["workload"]: row for row in listed(folder, "gpt2model_pbf16_b1", product)}
    assert rows["gpt2model_pbf16_b1"]["inputs"] == [[32, 16], [16, 5]]


def test_products_of_attention_keep_their_batch_and_float32_its_arithmetic(folder):
    fields = {"batch": 4, "dimM": 8, "dimN": 8, "dimK": 2, "precM": "fp32", "precA": "fp32", "useTensorCore": False}
    (row,) = listed(folder, "bert_pfp32_b1", [fields, ["gemm", "cuda", "fp32_fp32"]])
    assert row["inputs"] == [[4, 8, 2], [4, 2, 8]]
    assert (row["dtype"], row["math"]) == ("float32", "ieee")


def test_convolutions_norms_and_elementwise(folder):
    conv = {"b": 2, "m": 8, "c": 3, "hw": 16, "rs": 3, "stride": 2, "padding": 1, **PRODUCT}
    names = ("pointwise_add", "scalar_mul", "silu", "typecast_to_fp32", "unspecified_tensor")
    rows = listed(
        folder,
        "net_pbf16_b1",
        [conv, ["conv2d", "tc", "bf16_bf16"]],
        [{"batch": 6, "dim": 8, "prec": "bf16"}, ["layernorm", "bf16"]],
        [{"batch": 6, "dim": 8, "prec": "fp32"}, ["softmax", "fp32"]],
        *([VECTOR | {"op": name}, ["elementwise"]] for name in names),
    )
    assert rows[0]["inputs"] == [[2, 3, 16, 16], [8, 3, 3, 3]]
    assert json.loads(rows[0]["attrs"]) == {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    assert rows[1]["inputs"] == [[6, 8], [8], [8]]
    assert (rows[2]["op"], rows[2]["dtype"]) == ("Softmax", "float32")
    assert [row["op"] for row in rows[3:]] == ["Add", "Mul", "Swish", "Cast", "Neg"]
    assert rows[4]["inputs"] == [[48], []]


def test_equal_operators_are_counted_where_the_first_stands(folder):
    relu, tanh = ([VECTOR | {"op": name}, ["elementwise"]] for name in ("relu", "tanh"))
    rows = listed(folder, "net_pbf16_b1", relu, tanh, relu, relu)
    assert [(row["op"], row["position"], row["count"]) for row in rows] == [("Relu", 0, 3), ("Tanh", 1, 1)]


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    found = SOURCE.load(Path(str(DATA)) / SOURCE.folder)
    assert len(found.rows) == 447 - 13
    assert found.workloads is not None
    assert found.workloads["workload"].nunique() == 90
    # a board that works draws more than it idles at and no more than its limit
    assert found.rows["power_w"].between(30, 260).all()
