"""Vidur: blocks of language models in float16, operator by operator, at several degrees of tensor parallelism."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eopt.backends.target import load as sheet
from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {"a100": "nvidia-a100-80gb-sxm", "a40": "nvidia-a40"}
RESOLUTION_MS = 0.005
"""Times are whole microseconds: shorter medians are off by 10 % or more."""
LAST_AXIS = attrs_text(axis=-1)

Extents = list[list[int]]


class Block(NamedTuple):
    """A block on one rank, and how many tokens it is given. Fields are columns of the file, in its order."""

    n_head: int
    n_kv_head: int
    n_embd: int
    n_expanded_embd: int
    vocab_size: int
    use_gated_mlp: bool
    num_tokens: int
    num_tensor_parallel_workers: int

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.n_embd // self.n_head

    @property
    def inner(self) -> int:
        """Width of the perceptron on one rank."""
        return self.n_expanded_embd // self.num_tensor_parallel_workers

    @property
    def fused(self) -> int:
        """Width of the first product: gate and value side by side where there is a gate."""
        return self.inner * (2 if self.use_gated_mlp else 1)

    def product(self, k: int, n: int) -> Extents:
        """Operands of a product over all tokens."""
        return [[self.num_tokens, k], [k, n]]


def _query_key_value(block: Block) -> Extents:
    heads = (block.n_head + 2 * block.n_kv_head) // block.num_tensor_parallel_workers
    return block.product(block.n_embd, heads * block.head)


def _rope(block: Block) -> Extents:
    heads = (block.n_head + block.n_kv_head) // block.num_tensor_parallel_workers
    table = [1, block.num_tokens, block.head // 2]
    return [[1, heads, block.num_tokens, block.head], table, list(table)]


def _hidden(block: Block) -> list[int]:
    return [block.num_tokens, block.n_embd]


SHAPES: dict[str, Callable[[Block], Extents]] = {
    "attn_pre_proj": _query_key_value,
    "attn_post_proj": lambda b: b.product(b.n_embd // b.num_tensor_parallel_workers, b.n_embd),
    "mlp_up_proj": lambda b: b.product(b.n_embd, b.fused),
    "mlp_down_proj": lambda b: b.product(b.inner, b.n_embd),
    "mlp_act": lambda b: [[b.num_tokens, b.fused]],
    "attn_rope": _rope,
    "add": lambda b: [_hidden(b), _hidden(b)],
    "input_layernorm": lambda b: [_hidden(b), [b.n_embd]],
    "post_attention_layernorm": lambda b: [_hidden(b), [b.n_embd]],
    "emb": lambda b: [[b.vocab_size, b.n_embd], [b.num_tokens]],
}
OPS = {
    "mlp_act": "Swish",
    "attn_rope": "RotaryEmbedding",
    "add": "Add",
    "input_layernorm": "RMSNormalization",
    "post_attention_layernorm": "RMSNormalization",
    "emb": "Gather",
}
"""Everything else is a MatMul."""


def load(folder: Path) -> Dataset:
    """A row per device, model, operator and shape: equal work at several degrees is pooled by its median.

    Raises:
        UsageError: a device without a sheet.
    """
    import pandas as pd

    frame = pd.read_parquet(folder / "mlp.parquet")
    devices = {name: sheet(DEVICES.get(name, name)).name for name in frame["device"].unique()}
    frame["device"] = frame["device"].map(devices)
    return Dataset(pd.concat([_operator(name, _certain(name, frame)) for name in SHAPES], ignore_index=True))


def _certain(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows whose shape the columns settle."""
    frame = frame[frame[f"time_stats.{name}.median"] > 0]
    if name == "attn_rope":  # Phi-2 rotates a part of each head
        return frame[frame["use_gated_mlp"]]
    if name == "emb":  # a split vocabulary masks what other ranks hold
        return frame[frame["num_tensor_parallel_workers"] == 1]
    return frame


def _operator(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    blocks = map(Block, *(frame[column].tolist() for column in Block._fields))
    table = frame[["device", "model", "use_gated_mlp"]].assign(inputs=[SHAPES[name](block) for block in blocks])
    table["latency_ms"] = frame[f"time_stats.{name}.median"]
    table["key"] = table["inputs"].map(str)
    grouped = table.groupby(["device", "model", "use_gated_mlp", "key"], sort=False)
    table = grouped.agg(inputs=("inputs", "first"), latency_ms=("latency_ms", "median")).reset_index()
    table = _named(name, table).rename(columns={"model": "workload"})
    return table.drop(columns=["use_gated_mlp", "key", "latency_ms"]).assign(
        source="vidur",
        level="operator",
        dtype="float16",
        phase="forward",
        executor=None,  # layers timed one by one
    )


def _named(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Phi-2, the one model without a gate, has LayerNorm with a bias and GELU; the others RMSNorm and SiLU."""
    op = OPS.get(name, "MatMul")
    ops = [_plain(op, gated) for gated in table["use_gated_mlp"]]
    inputs = [
        [*extents, list(extents[1])] if op == "LayerNormalization" else extents
        for op, extents in zip(ops, table["inputs"], strict=True)
    ]
    return table.assign(
        op=ops,
        inputs=inputs,
        attrs=LAST_AXIS if op == "RMSNormalization" else "",
        latency_s=table["latency_ms"] * 1e-3,
        noisy=table["latency_ms"] < RESOLUTION_MS,
    )


def _plain(op: str, gated: bool) -> str:
    return op if gated else {"Swish": "Gelu", "RMSNormalization": "LayerNormalization"}.get(op, op)


SOURCE = Source(
    name="vidur",
    folder="latency/vidur",
    load=load,
    upstream="https://github.com/microsoft/vidur, commit 7d475133",
    licence="MIT",
    notes=(
        "145,578 medians become 101,920 rows: equal work at several degrees of tensor parallelism is pooled.",
        "Left out: rotation of Phi-2 (522; partial) and embeddings split over ranks (10,566; they mask).",
        "Times are kernels alone, in whole microseconds: 2,455 rows below 5 µs are noisy.",
        "A gated activation has gate and value side by side in its one input and is called Swish.",
    ),
)
