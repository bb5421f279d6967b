"""AIConfigurator: attention of prefill, of decode against a cache, and of encoders."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets import aic

if TYPE_CHECKING:
    import pandas as pd

SHAPE = ["attn_dtype", "kv_cache_dtype", "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"]
CONTEXT = ("latency_ctx_attn_vllm", "power_ctx_attn")
GENERATION = ("latency_gen_attn_vllm", "power_gen_attn")
ENCODER = "power_enc_attn"


def load(folder: Path) -> list[pd.DataFrame]:
    """Rows of every file of attention."""
    return [
        *(_cached(aic.read(folder, name), causal=True) for name in CONTEXT),
        *(_cached(aic.read(folder, name), causal=False) for name in GENERATION),
        _encoder(aic.read(folder, ENCODER)),
    ]


def _cached(frame: pd.DataFrame, causal: bool) -> pd.DataFrame:
    """`isl` new tokens (one in decode) after `step` tokens in the cache.

    Decode by TensorRT-LLM is noisy: from a gigabyte on it would read its cache at 1.5 to 1.8 times the bandwidth of the
    memory, where vLLM on the same boards reaches 0.9; it cannot have read all of it.
    """
    # 0 key-value heads mean as many as query heads; no window is 0 in some versions, null in others
    groups = frame["num_key_value_heads"].where(frame["num_key_value_heads"] > 0, frame["num_heads"])
    frame = frame.assign(num_key_value_heads=groups, window_size=frame["window_size"].fillna(0).astype(int))
    table = aic.measured(frame, [*SHAPE, "step", "window_size"])
    if not causal:
        table["noisy"] |= table["executor"] == "tensorrt"
    past, window = table["step"].tolist(), table["window_size"].tolist()
    attrs = aic.attributes(
        is_causal=repeat(1 if causal else None),
        past=[step or None for step in past],
        window=[size or None for size in window],
    )
    return _rows(table, past, attrs, "micro:context_attention" if causal else "micro:generation_attention")


def _encoder(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.assign(num_key_value_heads=frame["num_heads"], kv_cache_dtype=frame["attn_dtype"])
    table = aic.measured(frame, SHAPE)
    attrs = aic.attributes(is_causal=[0] * len(table))
    return _rows(table, [0] * len(table), attrs, "micro:encoder_attention")


def _rows(table: pd.DataFrame, past: list[int], attrs: list[str], workload: str) -> pd.DataFrame:
    columns = ("batch_size", "num_heads", "num_key_value_heads", "isl", "head_dim")
    shapes = zip(*(table[name].tolist() for name in columns), past, strict=True)
    dtype = [aic.DTYPES[name] for name in table["attn_dtype"]]
    cache = [aic.DTYPES[name] for name in table["kv_cache_dtype"]]
    return aic.rows(
        table,
        op="Attention",
        inputs=[[[b, h, s, d], [b, g, s + p, d], [b, g, s + p, d]] for b, h, g, s, d, p in shapes],
        dtype=dtype,
        weight_dtype=[kv if kv != own else None for kv, own in zip(cache, dtype, strict=True)],
        attrs=attrs,
        workload=workload,
    )
