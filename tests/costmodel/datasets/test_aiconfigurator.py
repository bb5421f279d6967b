"""The AIConfigurator adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets import aic, aic_attention, aic_gemm, aic_moe, aic_other
from eopt.costmodel.datasets.aiconfigurator import SOURCE
from eopt.ir.errors import UsageError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

DATA = os.environ.get("EOPT_DATA")
BASE = {"system": "h200_sxm", "kernel_source": "vllm_default", "fw": "vllm", "ver": "0.24.0", "latency": 2.0}
POWER = {"power": 350.0, "power_limit": 700.0}
GEMM = BASE | {"gemm_dtype": "bfloat16", "m": 4, "n": 16, "k": 8}
ATTENTION = BASE | {
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "fp8",
    "batch_size": 2,
    "isl": 5,
    "num_heads": 8,
    "num_key_value_heads": 0,
    "head_dim": 64,
    "step": 0,
    "window_size": None,
}
MOE = BASE | {
    "moe_dtype": "nvfp4",
    "num_tokens": 6,
    "hidden_size": 32,
    "inter_size": 64,
    "topk": 2,
    "num_experts": 8,
    "moe_tp_size": 2,
    "moe_ep_size": 4,
    "distribution": "balanced",
}


def frame(*rows: dict[str, Any]) -> Any:
    table = pd.DataFrame(list(rows))
    for name in ("system", "kernel_source", "fw", "ver"):
        table[name] = table[name].astype("category")
    return table


def test_time_and_power_of_equal_points_are_medians_of_the_newest_version():
    table = aic.measured(
        frame(
            GEMM | POWER | {"latency": 90.0, "ver": "0.9.1"},
            GEMM | POWER,
            GEMM | POWER | {"latency": 4.0, "power": 450.0},
            GEMM | POWER | {"latency": 0.0},
            GEMM | POWER | {"latency": float("nan")},
        ),
        ["m", "n", "k"],
    )
    assert table[["latency_s", "power_w", "energy_j"]].values.tolist() == [[3e-3, 400.0, pytest.approx(1.2)]]
    assert table["power_cap_w"].isna().all()  # the limit is the TDP
    assert not table["noisy"].any()


@pytest.mark.parametrize("power", [0.0, float("nan"), float("inf"), 20.0, 900.0])
def test_power_no_board_has_is_noisy(power):
    table = aic.measured(frame(GEMM | {"power": power, "power_limit": 600.0}), ["m", "n", "k"])
    assert table["noisy"].all()
    assert table["power_cap_w"].tolist() == [600.0]
    read = power in (20.0, 900.0)
    assert table["power_w"].notna().item() == table["energy_scope"].notna().item() == read


def test_a_device_without_a_sheet_is_refused():
    with pytest.raises(UsageError, match="abacus"):
        aic.measured(frame(GEMM | {"system": "abacus"}), ["m", "n", "k"])


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("torch.nn.functional.linear", "cublas"),
        ("FlashInferCuteDslNvFp4LinearKernel", "flashinfer-cute"),
        ("vllm_flash_attn_fa3", "flash-attn-3"),
        ("vllm_flashinfer_trtllmdecode", "flashinfer-trtllm"),
        ("vllm_compressedtensorswna16marlinmoe_marlin_marlinexperts", "marlin"),
        ("vllm_default", None),
    ],
)
def test_whose_kernel_it_is(source, short):
    assert aic.library(source) == short


def test_products_by_number_format(tmp_path):
    formats = ("bfloat16", "fp8_block", "nvfp4")
    frame(*(GEMM | {"gemm_dtype": name} for name in formats)).to_parquet(tmp_path / "latency_gemm_vllm.parquet")
    torch_flow = {"fw": "trtllm", "kernel_source": "torch_flow"}
    frame(GEMM | POWER | torch_flow).to_parquet(tmp_path / "power_gemm.parquet")
    latent = BASE | POWER | {"bmm_dtype": "bfloat16", "num_tokens": 3, "num_heads": 16}
    frame(latent).to_parquet(tmp_path / "power_mla_bmm.parquet")
    plain, power, bmm = aic_gemm.load(tmp_path)
    assert plain["inputs"].tolist() == [[[4, 8], [8, 16]]] * 3
    assert plain["dtype"].tolist() == ["bfloat16", "float8_e4m3", "float4_e2m1"]
    assert plain["scale"].fillna("").tolist() == ["", "block:128", "nvfp4"]
    assert "power_w" not in plain
    assert power[["executor", "energy_scope"]].values.tolist() == [["tensorrt", "board"]]
    assert power["library"].isna().all()
    assert bmm["inputs"].tolist() == [[[16, 3, 128], [16, 128, 512]]]


def attention(folder: Path) -> list[Any]:
    decode = ATTENTION | {"isl": 1, "step": 7, "num_key_value_heads": 2, "window_size": 128}
    frame(ATTENTION).to_parquet(folder / "latency_ctx_attn_vllm.parquet")
    frame(ATTENTION | POWER | {"step": 3}).to_parquet(folder / "power_ctx_attn.parquet")
    frame(decode).to_parquet(folder / "latency_gen_attn_vllm.parquet")
    frame(decode | POWER | {"fw": "trtllm"}).to_parquet(folder / "power_gen_attn.parquet")
    frame(ATTENTION | POWER).to_parquet(folder / "power_enc_attn.parquet")
    return aic_attention.load(folder)


def test_attention_has_the_cache_as_keys_and_values(tmp_path):
    context, continued, decode, trtllm, encoder = attention(tmp_path)
    assert context["inputs"].item() == [[2, 8, 5, 64]] * 3  # 0 key-value heads: as many as query heads
    assert json.loads(context["attrs"].item()) == {"is_causal": 1}
    assert context[["dtype", "weight_dtype"]].values.tolist() == [["bfloat16", "float8_e4m3"]]
    assert continued["inputs"].item()[1] == [2, 8, 8, 64]
    assert json.loads(continued["attrs"].item()) == {"is_causal": 1, "past": 3}
    assert decode["inputs"].item() == [[2, 8, 1, 64], [2, 2, 8, 64], [2, 2, 8, 64]]
    assert json.loads(decode["attrs"].item()) == {"past": 7, "window": 128}
    assert [bool(table["noisy"].item()) for table in (decode, trtllm)] == [False, True]
    assert json.loads(encoder["attrs"].item()) == {"is_causal": 0}
    assert encoder["weight_dtype"].isna().all()


def test_experts_are_those_of_one_rank(tmp_path):
    nemotron = {"topk": 22, "inter_size": 5120}
    nongated = {"kernel_source": "moe_torch_flow_nongated", "fw": "trtllm"}
    frame(MOE, MOE | nemotron).to_parquet(tmp_path / "latency_moe_vllm.parquet")
    old = MOE | nemotron | {"ver": "0.22.0"}
    frame(*(row | POWER for row in (old, MOE | nongated))).to_parquet(tmp_path / "power_moe.parquet")
    newer, older = aic_moe.load(tmp_path)
    assert newer["inputs"].iloc[0] == [[6, 32], [6, 8], [2, 64, 32], None, [2, 32, 32]]
    assert json.loads(newer["attrs"].iloc[0]) == {"k": 2, "ep": 4, "skew": "balanced"}
    assert newer["inputs"].iloc[1][2] == [2, 2560, 32]  # squared ReLU has no gate
    assert [inputs[2] for inputs in older["inputs"]] == [[2, 5120, 32], [2, 32, 32]]


def test_quantisation_with_a_computed_scale_is_the_sum(tmp_path):
    point = BASE | POWER | {"m": 4, "k": 8, "quant_dtype": "fp8"}
    static, dynamic = aic_other.quantize(frame(point), frame(point | {"latency": 0.5}))
    assert static[["op", "latency_s"]].values.tolist() == [["QuantizeLinear", 2e-3]]
    assert dynamic[["op", "latency_s"]].values.tolist() == [["DynamicQuantizeLinear", 2.5e-3]]
    assert "power_w" in static
    assert "power_w" not in dynamic


def test_modules_keep_every_column():
    row = BASE | POWER | {"model": "some/model", "mla_dtype": "bfloat16", "batch_size": 2, "isl": 5, "num_heads": 8}
    table = aic_other.module(frame(row | {"kernel_source": "default"}), "MLA", "context")
    assert table[["level", "op", "workload", "batch"]].values.tolist() == [["module", "MLA", "some/model", 2]]
    assert table["inputs"].tolist() == [[[2, 5]]]
    assert json.loads(table["attrs"].item()) == {"num_heads": 8, "stage": "context"}


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(rows) == 3_167_495
    assert rows["latency_s"].gt(0).all()
    assert set(rows.loc[rows["noisy"], "executor"]) == {"tensorrt"}
    assert rows["power_w"].notna().sum() == rows["energy_j"].notna().sum()
