"""The LLMServingSim adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.llmservingsim import SOURCE
from eopt.ir.errors import UsageError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

DATA = os.environ.get("EOPT_DATA")
LLAMA, PHI = "meta-llama/Llama-3.1-8B", "microsoft/Phi-mini-MoE-instruct"
LAYER = {"device": "RTX3090", "model": LLAMA, "input": 3, "tp_size": 2, "latency(ns)": 2000}
ATTENTION: dict[str, Any] = {
    "device": "A6000",
    "model": LLAMA,
    "n_embd": 4096,
    "n_q_head": 32,
    "n_kv_head": 8,
    "num_tensor_parallel_workers": 2,
    "batch_size": 1,
    "prefill_chunk_size": 32,
    "kv_cache_size": 64,
    "is_prefill": True,
    "time_stats.attn_prefill.median": 0.5,
    "time_stats.attn_decode.median": None,
}
DECODE = ATTENTION | {
    "is_prefill": False,
    "batch_size": 4,
    "prefill_chunk_size": 0,
    "time_stats.attn_prefill.median": None,
    "time_stats.attn_decode.median": 0.25,
}


def built(folder: Path, layers: list[dict[str, Any]], attention: list[dict[str, Any]]) -> Any:
    pd.DataFrame(layers).to_parquet(folder / "v0_layers.parquet")
    pd.DataFrame(attention).to_parquet(folder / "v0_attention.parquet")
    return SOURCE.load(folder).rows


def test_layers_whose_shape_is_certain(tmp_path):
    names = ("embedding", "input_layernorm", "q_proj", "o_proj", "down_proj", "lm_head", "rope", "act_fn")
    layers = [LAYER | {"layer_name": name} for name in names]
    phi = [LAYER | {"layer_name": name, "model": PHI} for name in ("input_layernorm", "expert.w2", "gate")]
    tpu = LAYER | {"layer_name": "q_proj", "device": "TPU-v6e-1"}
    rows = built(tmp_path, [*layers, *phi, tpu], [ATTENTION])
    rows = rows[rows["op"] != "Attention"]
    llama = rows[rows["workload"] == LLAMA]
    assert list(zip(llama["op"], llama["inputs"], strict=True)) == [
        ("Gather", [[128256, 4096], [3]]),
        ("RMSNormalization", [[3, 4096], [4096]]),
        ("MatMul", [[3, 4096], [4096, 2048]]),
        ("MatMul", [[3, 2048], [2048, 4096]]),
        ("MatMul", [[3, 7168], [7168, 4096]]),
        ("MatMul", [[3, 4096], [4096, 64128]]),
    ]
    assert rows[rows["workload"] == PHI]["inputs"].tolist() == [[[3, 4096], [4096], [4096]], [[3, 960], [960, 4096]]]
    assert rows[rows["noisy"]]["op"].tolist() == ["RMSNormalization"]
    assert rows["latency_s"].tolist() == pytest.approx([2e-6] * len(rows))


def test_attention_against_a_cache(tmp_path):
    empty = DECODE | {"kv_cache_size": 3}
    rows = built(tmp_path, [LAYER | {"layer_name": "rope"}], [ATTENTION, DECODE, empty])
    assert rows["inputs"].tolist() == [
        [[1, 16, 32, 128], [1, 4, 96, 128], [1, 4, 96, 128]],
        [[4, 16, 1, 128], [4, 4, 16, 128], [4, 4, 16, 128]],  # 64 cached tokens of four sequences
    ]
    assert rows["attrs"].tolist() == ['{"is_causal":1,"past":64}', '{"past":15}']
    assert rows["latency_s"].tolist() == pytest.approx([5e-4, 2.5e-4])


def test_a_device_without_a_sheet_is_refused(tmp_path):
    with pytest.raises(UsageError, match="Abacus"):
        built(tmp_path, [LAYER | {"layer_name": "q_proj", "device": "Abacus"}], [ATTENTION])


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert rows.groupby("device").size().to_dict() == {"nvidia-rtx-3090": 49_152, "nvidia-rtx-a6000": 91_343}
    assert rows["latency_s"].gt(0).all()
