"""AIConfigurator: matrix products by number format, and the products inside multi-head latent attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets import aic

if TYPE_CHECKING:
    import pandas as pd

FILES = ("latency_gemm_vllm", "power_gemm")
NOPE_HEAD, LATENT = 128, 512  # of DeepSeek's attention: width of a head without rotation, rank of the cache


def load(folder: Path) -> list[pd.DataFrame]:
    """Rows of every file of products."""
    return [*(_gemm(aic.read(folder, name)) for name in FILES), _latent(aic.read(folder, "power_mla_bmm"))]


def _gemm(frame: pd.DataFrame) -> pd.DataFrame:
    table = aic.measured(frame, ["gemm_dtype", "m", "n", "k"])
    # TensorRT-LLM's torch flow picks cuBLAS, CUTLASS or its own kernel by shape: whose is not said
    table["library"] = table["library"].where(table["library"] != "trtllm", None)
    shapes = zip(table["m"].tolist(), table["n"].tolist(), table["k"].tolist(), strict=True)
    return aic.rows(
        table,
        op="MatMul",
        inputs=[[[m, k], [k, n]] for m, n, k in shapes],
        attrs="",
        workload="micro:gemm",
        **aic.formats(table["gemm_dtype"]),
    )


def _latent(frame: pd.DataFrame) -> pd.DataFrame:
    # the products before and after attention (128 x 512 and 512 x 128) are not told apart: same work, pooled
    table = aic.measured(frame, ["bmm_dtype", "num_tokens", "num_heads"])
    shapes = zip(table["num_heads"].tolist(), table["num_tokens"].tolist(), strict=True)
    return aic.rows(
        table,
        op="MatMul",
        inputs=[[[heads, tokens, NOPE_HEAD], [heads, NOPE_HEAD, LATENT]] for heads, tokens in shapes],
        attrs="",
        workload="micro:mla_bmm",
        **aic.formats(table["bmm_dtype"]),
    )
