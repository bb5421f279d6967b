"""AIConfigurator: mixtures of experts, the share of one rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets import aic

if TYPE_CHECKING:
    import pandas as pd

FILES = ("latency_moe_vllm", "power_moe")
SHAPE = ["moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"]


def load(folder: Path) -> list[pd.DataFrame]:
    """Rows of every file of mixtures."""
    return [_moe(aic.read(folder, name)) for name in FILES]


def _gated(frame: pd.DataFrame) -> pd.Series:
    """Whether the first product yields gate and value.

    TensorRT-LLM's collector says so in the kernel source. vLLM's gives Nemotron-H its own squared ReLU from 0.24 on
    and SwiGLU before: read as gated, the newer rows would be 1.5 times faster than any neighbour and beyond the peak
    bandwidth.
    """
    nemotron = (frame["topk"] == 22) | (frame["inter_size"] == 1856)
    new = frame["ver"].astype(str).str.startswith("0.24") & (frame["fw"] == "vllm")
    return ~(frame["kernel_source"].astype(str).str.contains("nongated") | (nemotron & new))


def _moe(frame: pd.DataFrame) -> pd.DataFrame:
    table = aic.measured(frame.assign(gated=_gated(frame)), [*SHAPE, "distribution", "gated"])
    experts = table["num_experts"] // table["moe_ep_size"]
    width = table["inter_size"] // table["moe_tp_size"]
    first = width * (1 + table["gated"])
    tokens, hidden = table["num_tokens"], table["hidden_size"]
    columns = (tokens, hidden, table["num_experts"], experts, first, width)
    shapes = zip(*(column.tolist() for column in columns), strict=True)
    attrs = aic.attributes(
        k=table["topk"].tolist(),
        ep=[size if size > 1 else None for size in table["moe_ep_size"].tolist()],
        skew=table["distribution"].tolist(),
    )
    return aic.rows(
        table,
        op="com.microsoft.MoE",
        # operands as ONNX Runtime has them: the bias of the first product is absent, hence None
        inputs=[[[t, h], [t, e], [local, f, h], None, [local, h, w]] for t, h, e, local, f, w in shapes],
        attrs=attrs,
        workload="micro:moe",
        **aic.formats(table["moe_dtype"]),
    )
