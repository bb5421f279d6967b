"""The NeuSight adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eopt.costmodel.datasets import neusight_models, neusight_ops
from eopt.costmodel.datasets.neusight import SOURCE
from eopt.costmodel.datasets.neusight_graph import Node, Operator, counts, operators
from eopt.ir.errors import UsageError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

DATA = os.environ.get("EOPT_DATA")
NONE = {name: None for extents in neusight_ops.EXTENTS.values() for name in extents} | {"H": None}
DESC = "gpt2_large-train-1024-2"
GRAPH = [
    ("wte", "EMBEDDING", "[['MEM', ((2, 1024), (2, 1024, 8))]]", "[]", "set()", (2, 1024, 8)),
    ("transformer_h_0_ln_1", "VECln", "[['VECln', (2048, 8)]]", "[['VECmul', (2048, 8)]]", "{'wte'}", (2, 1024, 8)),
    ("size", "misc", "[]", "[]", "{'wte'}", (1,)),
    ("addmm", "Linear", "[['Linear', (2048, 8, 24)]]", "[['Linear', (2048, 24, 8)]]", "{'x'}", (2048, 24)),
    ("addmm_1", "Linear", "[['Linear', (2048, 8, 24)]]", "[['Linear', (2048, 24, 8)]]", "{'x'}", (2048, 24)),
    ("transformer_h_0_drop", "misc", "[]", "[]", "{'addmm'}", (2, 1024, 8)),
    ("add_1", "VECadd", "[['VECadd', (2048, 8)]]", "[['MEM', ((2048, 8),)]]", "{'wte', 'size'}", (2, 1024, 8)),
    ("lm_head", "Linear", "[['Linear', (2048, 8, 50257)]]", "[['Linear', (1, 1, 1)]]", "{'add_1'}", (2048, 50257)),
]


def micro(folder: Path, *rows: dict[str, object]) -> None:
    table = pd.DataFrame([NONE | {"Device": "Tesla T4", "Kernel Name": "k", "split": "test"} | row for row in rows])
    table.to_parquet(folder / "ops_nvidia.parquet")
    table.iloc[:0].to_parquet(folder / "ops_amd.parquet")


def models(folder: Path, whole_ms: float = 18.0) -> None:
    graph = pd.DataFrame(GRAPH, columns=["Name", "OpName", "FwOps", "BwOps", "Prev", "OutputShape"])
    graph["OutputShape"] = graph["OutputShape"].map(str)
    parallel = graph.assign(desc=f"{DESC}-tp4")
    pd.concat([graph.assign(desc=DESC), parallel]).to_parquet(folder / "opgraphs.parquet")
    labels = graph[["Name"]].assign(desc=DESC, device="Tesla_T4", fw_latency=1.0, bw_latency=2.0)
    labels.loc[labels["Name"] == "addmm_1", "fw_latency"] = 3.0
    labels.to_parquet(folder / "op_labels_in_models.parquet")
    label = {"num_layer": 3, "label_e2e_latency": 50.0, "label_fw_latency": whole_ms}
    rows = [{"device": "Tesla_T4", "desc": name} | label for name in (DESC, f"{DESC}-tp4")]
    pd.DataFrame(rows).to_csv(folder / "model_e2e.csv", index=False)


def test_operators_alone_get_operands_and_lose_what_leaks(tmp_path):
    micro(
        tmp_path,
        {"OPName": "linear", "latency_ms": 1.0, "B": 1, "M": 5, "N": 7, "K": 3},
        {"OPName": "linear", "latency_ms": 3.0, "B": 1, "M": 5, "N": 7, "K": 3},
        {"OPName": "bmm", "latency_ms": 1.0, "B": 2, "M": 5, "N": 7, "K": 3},
        {"OPName": "addu", "latency_ms": 1.0, "B": 4, "H": 6},
        {"OPName": "ln", "latency_ms": 1.0, "B": 4, "H": 6},
        {
            "OPName": "conv",
            "latency_ms": 1.0,
            "B": 2,
            "Input_Channel": 3,
            "Output_Channel": 8,
            "Input_Size": 9,
            "Kernel_Size": 3,
            "Stride": 1,
            "Padding": 1,
        },
    )
    table = neusight_ops.rows(tmp_path).set_index("op")
    assert table["inputs"].to_dict() == {
        "Add": [[4, 6], []],
        "MatMul": [[2, 5, 7], [2, 7, 3]],
        "Conv": [[2, 3, 9, 9], [8, 3, 3, 3]],
        "Gemm": [[5, 3], [3, 7], [7]],
        "LayerNormalization": [[4, 6], [6], [6]],
    }
    assert table["latency_s"]["Gemm"] == pytest.approx(2e-3)  # the median of the repeats
    assert table["math"].dropna().to_dict() == {"MatMul": "ieee", "Conv": "tf32", "Gemm": "ieee"}
    assert table["attrs"]["Conv"] == '{"pads":[1,1,1,1],"strides":[1,1]}'
    assert set(table["device"]) == {"nvidia-t4"}
    assert not {"Kernel Name", "split"} & set(table)


def test_a_device_without_a_sheet_is_refused(tmp_path):
    micro(tmp_path, {"OPName": "relu", "latency_ms": 1.0, "B": 4, "H": 6, "Device": "Abacus"})
    with pytest.raises(UsageError, match="Abacus"):
        neusight_ops.rows(tmp_path)


def test_models_their_operators_and_what_they_run(tmp_path):
    models(tmp_path)
    rows, workloads = neusight_models.rows(tmp_path)
    whole = rows[rows["level"] == "model"]
    assert whole["phase"].tolist() == ["training", "forward"]
    assert whole["latency_s"].tolist() == pytest.approx([0.05, 0.018])
    assert set(whole["batch"]) == {2}
    forward = workloads[workloads["phase"] == "forward"]
    assert list(zip(forward["op"], forward["count"], strict=True)) == [
        *[("Gather", 1), ("LayerNormalization", 3), ("Gemm", 3), ("Gemm", 3), ("Add", 3), ("MatMul", 1)]
    ]
    assert workloads[workloads["phase"] == "backward"]["op"].tolist() == [
        "MatMul",
        "Gemm",
        "Gemm",
        "LayerNormalization",
    ]
    assert set(workloads["workload"]) == {DESC}
    gemm = rows[rows["op"] == "Gemm"].set_index("phase")
    assert gemm["latency_s"].to_dict() == {"forward": 2e-3, "backward": 2e-3}  # medians of two equal products
    assert not rows["noisy"].any()


def test_a_run_whose_operators_contradict_it_is_noisy(tmp_path):
    models(tmp_path, whole_ms=40.0)  # the operators take 1 + 3 (1 + 1 + 3 + 1) + 1 = 20 ms
    assert neusight_models.rows(tmp_path)[0]["noisy"].all()


def test_sums_that_broadcast_have_the_extents_they_come_from():
    mask = Node("mask", "misc", (), False, (), (2, 1, 1, 8))
    scores = Node("scores", "misc", (), False, (), (2, 4, 8, 8))
    node = Node("add", "VECadd", (("VECadd", (64, 8)),), False, ("mask", "scores"), (2, 4, 8, 8))
    by_name = {one.name: one for one in (mask, scores)}
    assert operators(node, by_name, DESC) == [Operator("Add", [[2, 4, 8, 8], [2, 1, 1, 8]])]
    assert operators(node, {}, DESC) == [Operator("Add", [[64, 8], [64, 8]])]


def test_a_graph_with_every_layer_counts_each_node_once():
    graph = [Node(f"bert_layer_{i}_x", "Linear", (), False, (), (1,)) for i in range(2)]
    assert counts(graph, 24) == [1, 1]


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    found = SOURCE.load(Path(str(DATA)) / SOURCE.folder)
    assert found.workloads is not None
    assert len(found.rows) == 320_675
    assert found.rows["latency_s"].gt(0).all()
    assert not found.rows.loc[found.rows["level"] == "model", "workload"].str.contains("-tp|-pp|-dp").any()
    assert found.rows.loc[found.rows["device"] == "amd-mi250", "noisy"].all()
