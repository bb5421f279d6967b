"""The Vidur adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.vidur import SHAPES, SOURCE
from eopt.ir.errors import UsageError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

DATA = os.environ.get("EOPT_DATA")
TIMES = {f"time_stats.{name}.median": 0.5 for name in SHAPES}
LLAMA: dict[str, Any] = TIMES | {
    "n_head": 8,
    "n_kv_head": 2,
    "n_embd": 64,
    "n_expanded_embd": 96,
    "vocab_size": 100,
    "use_gated_mlp": True,
    "num_tokens": 3,
    "num_tensor_parallel_workers": 2,
    "device": "a40",
    "model": "llama",
}
PHI = LLAMA | {
    "use_gated_mlp": False,
    "model": "phi",
    "num_tensor_parallel_workers": 1,
    "time_stats.post_attention_layernorm.median": None,
}


def built(folder: Path, *rows: dict[str, Any]) -> Any:
    pd.DataFrame(list(rows)).to_parquet(folder / "mlp.parquet")
    return SOURCE.load(folder).rows


def test_a_gated_block_on_two_ranks(tmp_path):
    rows = built(tmp_path, LLAMA)
    products = rows[rows["op"] == "MatMul"]["inputs"].tolist()
    assert products == [[[3, 64], [64, 48]], [[3, 32], [32, 64]], [[3, 64], [64, 96]], [[3, 48], [48, 64]]]
    others = dict(zip(rows["op"], rows["inputs"], strict=True))
    assert others["Swish"] == [[3, 96]]
    assert others["RotaryEmbedding"] == [[1, 5, 3, 8], [1, 3, 4], [1, 3, 4]]
    assert others["RMSNormalization"] == [[3, 64], [64]]
    assert "Gather" not in others  # the vocabulary is split
    assert set(rows["device"]) == {"nvidia-a40"}
    assert rows["latency_s"].tolist() == pytest.approx([5e-4] * len(rows))


def test_a_block_without_a_gate(tmp_path):
    rows = built(tmp_path, PHI)
    others = dict(zip(rows["op"], rows["inputs"], strict=True))
    assert others["Gelu"] == [[3, 96]]
    assert others["LayerNormalization"] == [[3, 64], [64], [64]]
    assert others["Gather"] == [[100, 64], [3]]
    assert "RotaryEmbedding" not in others  # partial
    assert rows["op"].value_counts()["LayerNormalization"] == 1


def test_equal_work_at_several_degrees_is_pooled_and_short_times_are_noisy(tmp_path):
    alone = LLAMA | {"num_tensor_parallel_workers": 1, "time_stats.add.median": 0.003}
    rows = built(tmp_path, alone, LLAMA | {"time_stats.add.median": 0.005})
    add = rows[rows["op"] == "Add"]
    assert add["latency_s"].tolist() == pytest.approx([4e-6])
    assert add["noisy"].tolist() == [True]
    assert not rows[rows["op"] != "Add"]["noisy"].any()


def test_a_device_without_a_sheet_is_refused(tmp_path):
    with pytest.raises(UsageError, match="abacus"):
        built(tmp_path, LLAMA | {"device": "abacus"})


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(rows) == 101_920
    assert rows["noisy"].sum() == 2_455
    assert rows["latency_s"].gt(0).all()
