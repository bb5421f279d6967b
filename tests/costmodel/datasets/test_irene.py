"""The IrEne adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.irene import SOURCE
from eopt.ir.errors import InputError

pd = pytest.importorskip("pandas")

DATA = os.environ.get("EOPT_DATA")
BERT = {"batch_size": 2, "seq_len": 4, "mem_bytes": 1.0, "times_mean": 0.5, "energy_mean": 100.0, "model_name": "bert"}
SQUARE = 2 * 8 * 768 * 768 / 1e6  # million FLOPs of 8 tokens


def rows(folder: Path, file: str, *lines: dict[str, Any]) -> Any:
    pd.DataFrame([BERT | line for line in lines]).to_csv(folder / f"device_{file}_level_features.csv.gz", index=False)
    return SOURCE.load(folder).rows


@pytest.mark.parametrize(
    ("name", "mflop", "op", "inputs"),
    [
        ("encoder.layer.0.attention.self.key:Linear", SQUARE, "Gemm", [[8, 768], [768, 768], [768]]),
        ("encoder.layer.3.intermediate.dense:Linear", 4 * SQUARE, "Gemm", [[8, 768], [768, 3072], [3072]]),
        ("encoder.layer.3.output.dense:Linear", 4 * SQUARE, "Gemm", [[8, 3072], [3072, 768], [768]]),
        ("encoder.layer.3.attention.output.dense:Linear", SQUARE, "Gemm", [[8, 768], [768, 768], [768]]),
        ("pooler.dense:Linear", SQUARE / 4, "Gemm", [[2, 768], [768, 768], [768]]),
        ("h.1.attn.c_attn:Conv1D", 3 * SQUARE, "Gemm", [[8, 768], [768, 2304], [2304]]),
        ("h.1.mlp.c_proj:Conv1D", 4 * SQUARE, "Gemm", [[8, 3072], [3072, 768], [768]]),
        ("h.1.attn:MatMul", 2 * 24 * 4 * 4 * 64 / 1e6, "MatMul", [[2, 12, 4, 64], [2, 12, 64, 4]]),
        ("h.1.attn:Softmax", 1.0, "Softmax", [[2, 12, 4, 4]]),
        ("ln_f:LayerNorm", 1.0, "LayerNormalization", [[8, 768], [768], [768]]),
        ("pooler.activation:Tanh", 1.0, "Tanh", [[2, 768]]),
    ],
)
def test_shapes_follow_from_names(tmp_path, name, mflop, op, inputs):
    (row,) = rows(tmp_path, "1_ml1", {"level_name": name, "flops": mflop}).to_dict("records")
    assert (row["op"], row["inputs"], row["level"]) == (op, inputs, "operator")
    assert (row["device"], row["energy_scope"], row["power_w"]) == ("nvidia-gtx-1070", "wall", 200)


def test_a_lookup_has_as_many_rows_as_it_writes(tmp_path):
    written = {"mem_bytes": 4 * (4 * 768 + 8) / 2**20}
    (row,) = rows(tmp_path, "2_ml1", {"level_name": "wpe:Embedding", "flops": 0.0} | written).to_dict("records")
    assert (row["op"], row["inputs"][1], row["device"]) == ("Gather", [4], "nvidia-gtx-1080-ti")


def test_a_model_with_other_widths(tmp_path):
    tiny = {"model_name": "sshleifer/tiny-ctrl", "level_name": "h.0.ffn.0:Linear", "flops": 8 * 2 * 33 / 1e6}
    assert rows(tmp_path, "1_ml1", tiny)["inputs"].tolist() == [[[8, 16], [16, 2], [2]]]


def test_layers_that_repeat_a_measurement_are_one_row_by_model(tmp_path):
    layers = [{"level_name": f"h.{i}.attn:Softmax", "flops": 1.0} for i in range(3)]
    table = rows(tmp_path, "1_ml2", *layers, layers[0] | {"model_name": "gpt2"})
    assert table["workload"].tolist() == ["bert", "gpt2"]


def test_modules_and_models_keep_the_sum_of_their_work(tmp_path):
    table = rows(tmp_path, "1_module", {"level_name": "h.0:Block", "flops": 2.0})
    assert table[["level", "op"]].values.tolist() == [["module", "Block"]]
    assert table["inputs"].tolist() == [[[2, 4]]]
    assert json.loads(table["attrs"].iloc[0]) == {"flops": 2_000_000, "mem_bytes": 2**20}
    table = rows(tmp_path, "1_model", {"level_name": "bert", "flops": 2.0})
    assert "Model" in set(table["op"])


def test_shapes_that_miss_the_flops_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="FLOPs"):
        rows(tmp_path, "1_ml1", {"level_name": "x.key:Linear", "flops": SQUARE * 1.02})
    with pytest.raises(InputError, match="is not known"):
        rows(tmp_path, "1_ml1", {"level_name": "x:Dropout", "flops": 1.0})


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    table = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    counts = table.groupby(["device", "level"]).size().to_dict()
    assert counts == {
        ("nvidia-gtx-1070", "operator"): 1187 + 388,
        ("nvidia-gtx-1070", "module"): 998,
        ("nvidia-gtx-1070", "model"): 193,
        ("nvidia-gtx-1080-ti", "operator"): 1376 + 448,
        ("nvidia-gtx-1080-ti", "module"): 1152,
        ("nvidia-gtx-1080-ti", "model"): 224,
    }
