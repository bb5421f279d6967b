"""LLMServingSim: layers of two language models in bfloat16, and their attention against a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eopt.backends.target import load as sheet
from eopt.costmodel.datasets.base import COLUMNS, Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {"A6000": "nvidia-rtx-a6000", "RTX3090": "nvidia-rtx-3090"}
WITHOUT_SHEET = ("TPU-v6e-1",)
LAST_AXIS = attrs_text(axis=-1)

Extents = list[list[int]]


class Model(NamedTuple):
    """Widths of a model, from its published configuration."""

    hidden: int
    query: int
    cache: int
    inner: int
    vocabulary: int
    norm: str


MODELS = {
    "meta-llama/Llama-3.1-8B": Model(4096, 4096, 1024, 14336, 128256, "RMSNormalization"),
    "microsoft/Phi-mini-MoE-instruct": Model(4096, 4096, 1024, 960, 32064, "LayerNormalization"),
}


def _norm(m: Model, tokens: int, _: int) -> Extents:
    weights = [[m.hidden], [m.hidden]] if m.norm == "LayerNormalization" else [[m.hidden]]
    return [[tokens, m.hidden], *weights]


def _column(width: Callable[[Model], int]) -> Callable[[Model, int, int], Extents]:
    """A product whose columns are split over the ranks."""
    return lambda m, tokens, ranks: [[tokens, m.hidden], [m.hidden, width(m) // ranks]]


def _row(width: Callable[[Model], int]) -> Callable[[Model, int, int], Extents]:
    """A product whose rows are split over the ranks."""
    return lambda m, tokens, ranks: [[tokens, width(m) // ranks], [width(m) // ranks, m.hidden]]


SHAPES: dict[str, Callable[[Model, int, int], Extents]] = {
    "embedding": lambda m, tokens, _: [[m.vocabulary, m.hidden], [tokens]],
    "input_layernorm": _norm,
    "post_layernorm": _norm,
    "final_layernorm": _norm,
    "q_proj": _column(lambda m: m.query),
    "k_proj": _column(lambda m: m.cache),
    "v_proj": _column(lambda m: m.cache),
    "o_proj": _row(lambda m: m.query),
    "gate_proj": _column(lambda m: m.inner),
    "up_proj": _column(lambda m: m.inner),
    "down_proj": _row(lambda m: m.inner),
    "lm_head": _column(lambda m: m.vocabulary),
    # experts are not split: their times do not depend on the ranks
    "expert.w1": lambda m, tokens, _: [[tokens, m.hidden], [m.hidden, m.inner]],
    "expert.w2": lambda m, tokens, _: [[tokens, m.inner], [m.inner, m.hidden]],
    "expert.w3": lambda m, tokens, _: [[tokens, m.hidden], [m.hidden, m.inner]],
}
"""Layers whose shape is certain: model, tokens, ranks -> extents."""


def load(folder: Path) -> Dataset:
    """Layers and attention, equal ones of one model by their median.

    Raises:
        UsageError: a device without a sheet.
    """
    import pandas as pd

    layers = pd.read_parquet(folder / "v0_layers.parquet")
    attention = pd.read_parquet(folder / "v0_attention.parquet")
    table = pd.concat([_layers(layers), _attention(attention)], ignore_index=True)
    table = table[~table["device"].isin(WITHOUT_SHEET)]
    devices = {name: sheet(DEVICES.get(name, name)).name for name in table["device"].unique()}
    keys = ["device", "model", "op", "key", "attrs", "executor", "library"]
    grouped = table.assign(device=table["device"].map(devices), key=table["inputs"].map(str)).groupby(
        keys, sort=False, dropna=False
    )
    table = grouped.agg(inputs=("inputs", "first"), latency_s=("latency_s", "median")).reset_index()
    table = table.assign(
        source="llmservingsim",
        level="operator",
        dtype="bfloat16",
        phase="forward",
        workload=table["model"],
        # eager RMSNorm of Llama is a handful of kernels: a tenth of the bandwidth of Phi's LayerNorm
        noisy=table["op"] == "RMSNormalization",
    )
    return Dataset(table[[name for name in COLUMNS if name in table]])


def _layers(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[frame["layer_name"].isin(SHAPES)]
    steps = zip(*(frame[name].tolist() for name in ("layer_name", "model", "input", "tp_size")), strict=True)
    inputs = [SHAPES[layer](MODELS[model], tokens, ranks) for layer, model, tokens, ranks in steps]
    names = zip(frame["layer_name"].tolist(), frame["model"].tolist(), strict=True)
    ops = [_op(layer, model) for layer, model in names]
    return frame[["device", "model"]].assign(
        op=ops,
        inputs=inputs,
        attrs=[LAST_AXIS if op.endswith("Normalization") else "" for op in ops],
        executor="torch",
        library=None,
        latency_s=frame["latency(ns)"] * 1e-9,
    )


def _op(layer: str, model: str) -> str:
    if layer == "embedding":
        return "Gather"
    return MODELS[model].norm if layer.endswith("norm") else "MatMul"


def _attention(frame: pd.DataFrame) -> pd.DataFrame:
    """A chunk of a prompt after `kv_cache_size` cached tokens, or one token of every sequence of a batch.

    In decode the file counts the cached tokens of the whole batch: times follow the sum, and fall to that of an empty
    kernel where it is smaller than the batch. Those rows are dropped; the new token itself is not attended to.
    """
    frame = frame[~frame["device"].isin(WITHOUT_SHEET) & (frame["is_prefill"] | _cached(frame).gt(0))]
    prefill, ranks = frame["is_prefill"], frame["num_tensor_parallel_workers"]
    new = frame["prefill_chunk_size"].where(prefill, 1)
    length = (frame["kv_cache_size"] + new).where(prefill, _cached(frame))
    head = frame["n_embd"] / frame["n_q_head"]
    columns = (frame["batch_size"], frame["n_q_head"] / ranks, frame["n_kv_head"] / ranks, new, length, head)
    shapes = list(zip(*(column.astype(int).tolist() for column in columns), strict=True))
    causal = [1 if one else None for one in prefill]
    latency_ms = frame["time_stats.attn_prefill.median"].where(prefill, frame["time_stats.attn_decode.median"])
    return frame[["device", "model"]].assign(
        op="Attention",
        inputs=[[[b, q, s, d], [b, c, k, d], [b, c, k, d]] for b, q, c, s, k, d in shapes],
        attrs=[
            attrs_text(is_causal=one, past=k - s or None)
            for one, (_, _, _, s, k, _) in zip(causal, shapes, strict=True)
        ],
        executor=None,  # layers timed one by one, each with its own launch
        library="flash-attn",
        latency_s=latency_ms * 1e-3,
    )


def _cached(frame: pd.DataFrame) -> pd.Series:
    """Cached tokens of one sequence in decode."""
    return frame["kv_cache_size"] // frame["batch_size"]


SOURCE = Source(
    name="llmservingsim",
    folder="latency/llmservingsim",
    load=load,
    upstream="https://github.com/casys-kaist/LLMServingSim, head of 2026-08-21",
    licence="MIT",
    notes=(
        "TPU v6e has no sheet: 22,217 layers and 8,407 of attention are left out.",
        "53,248 layers are left out whose shape or kernels are uncertain: rotation, activation, router, attention "
        "in eager mode.",
        "98,304 layers remain of 196,608: equal products of one model (query, output; key, value …) are pooled.",
        "Decode counts cached tokens of the whole batch; 1,132 rows with less than one per sequence are left out.",
        "4,096 rows of Llama's RMSNorm are noisy: several eager kernels.",
    ),
)
