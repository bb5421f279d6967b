"""What the parts of the AIConfigurator adapter share: devices, number formats, kernels, seconds and watts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.backends.target import load
from eopt.costmodel.datasets.base import COLUMNS, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {
    "a100_sxm": "nvidia-a100-80gb-sxm",
    "b200_sxm": "nvidia-b200-sxm",
    "b300_sxm": "nvidia-b300-sxm",
    "b60": "intel-b60",
    "gb200": "nvidia-gb200",
    "gb300": "nvidia-gb300",
    "h200_sxm": "nvidia-h200-sxm",
}
EXECUTORS = {"vllm": "vllm", "trtllm": "tensorrt"}
DTYPES = {"bfloat16": "bfloat16", "fp8": "float8_e4m3"}

FORMATS: dict[str, tuple[str, str | None, str | None]] = {
    "bfloat16": ("bfloat16", None, None),
    "fp8": ("float8_e4m3", None, "tensor"),
    "fp8_block": ("float8_e4m3", None, "block:128"),
    "nvfp4": ("float4_e2m1", None, "nvfp4"),
    "int4_wo": ("bfloat16", "int4", "block:128"),
    "w4a16_mxfp4": ("bfloat16", "float4_e2m1", "mx"),
    "w4a8_mxfp4_mxfp8": ("float8_e4m3", "float4_e2m1", "mx"),
}
"""Name of a quantisation -> dtype of activations, of weights where it differs, and scale."""

LIBRARIES = (
    ("deepgemm", "deepgemm"),
    ("flashinfercutedsl", "flashinfer-cute"),
    ("flashinfer_trtllm", "flashinfer-trtllm"),
    ("flashinfer_cutlass", "flashinfer-cutlass"),
    ("flashinfercutlass", "flashinfer-cutlass"),
    ("flashinfer", "flashinfer"),
    ("flash_attn_fa2", "flash-attn-2"),
    ("flash_attn_fa3", "flash-attn-3"),
    ("flash_attn_fa4", "flash-attn-4"),
    ("flash_attn", "flash-attn"),
    ("marlin", "marlin"),
    ("triton", "triton"),
    ("vllm_fused_moe", "triton"),
    ("cutlass", "cutlass"),
    ("torch.nn.functional.linear", "cublas"),
    ("torch_flow", "trtllm"),
)
"""Part of a kernel source in lower case -> library; the first match counts."""

IDLE_SHARE = 0.05  # of TDP: no board that works draws less
LIMIT_SHARE = 1.15  # of the power limit: what a 1 s mean may overshoot by


def library(kernel_source: str) -> str | None:
    """Whose kernel it is; None for sources that only name a framework."""
    name = kernel_source.lower()
    return next((short for part, short in LIBRARIES if part in name), None)


def measured(frame: pd.DataFrame, shape: list[str]) -> pd.DataFrame:
    """One row per device, executor, library and shape: the median of the newest version, in s, W and J.

    Rows without a positive latency are dropped. `kernel_source`, `fw`, `ver` and the milliseconds go.

    Raises:
        UsageError: a device without a sheet.
    """
    frame = frame[frame["latency"] > 0]
    ranks = {name: rank for rank, name in enumerate(sorted(frame["ver"].unique(), key=_version))}
    devices = {name: load(DEVICES.get(name, name)).name for name in frame["system"].unique()}
    libraries = {name: library(name) for name in frame["kernel_source"].unique()}
    frame = frame.assign(
        device=frame["system"].map(devices).astype(object),
        executor=frame["fw"].map(EXECUTORS).astype(object),
        library=frame["kernel_source"].astype(object).map(libraries),
        rank=frame["ver"].astype(object).map(ranks),
    )
    keys = ["device", "executor", "library", *shape]
    grouped = frame.groupby(keys, dropna=False, observed=True, sort=False)
    frame = frame[frame["rank"] == grouped["rank"].transform("max")]
    values = [name for name in ("latency", "power", "power_limit") if name in frame]
    table = frame.groupby(keys, dropna=False, observed=True, sort=False)[values].median().reset_index()
    table["library"] = table["library"].astype(object).where(table["library"].notna(), None)
    return table.assign(latency_s=table["latency"].astype(float) * 1e-3, **_power(table))


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _power(table: pd.DataFrame) -> dict[str, Any]:
    """Columns of power and energy; readings no board can have are null or noisy."""
    import numpy as np

    if "power" not in table:
        return {"noisy": False}
    tdp = table["device"].map({name: load(name).tdp_w for name in table["device"].unique()})
    limit = table["power_limit"]
    power = table["power"].astype(float)
    power = power.where(np.isfinite(power) & (power > 0))
    energy = power * table["latency"].astype(float) * 1e-3
    return {
        "power_w": power,
        "energy_j": energy,
        "energy_scope": energy.notna().map({True: "board", False: None}),
        "power_cap_w": limit.where(limit != tdp),
        "noisy": power.isna() | (power < IDLE_SHARE * tdp) | (power > LIMIT_SHARE * limit),
    }


def formats(names: pd.Series) -> dict[str, list[str | None]]:
    """Columns `dtype`, `weight_dtype` and `scale` of quantisations; a name that is not in `FORMATS` is a KeyError."""
    found = [FORMATS[name] for name in names]
    return {column: [entry[i] for entry in found] for i, column in enumerate(("dtype", "weight_dtype", "scale"))}


def attributes(**columns: Iterable[Any]) -> list[str]:
    """`attrs_text` of every row; equal rows share one text."""
    names = tuple(columns)

    @cache
    def text(values: tuple[Any, ...]) -> str:
        return attrs_text(**dict(zip(names, values, strict=True)))

    return [text(values) for values in zip(*columns.values(), strict=False)]


def rows(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The columns of the common table; those of the source go."""
    table = table.assign(**{"source": "aiconfigurator", "level": "operator", "phase": "forward", **columns})
    return table[[name for name in COLUMNS if name in table]]


def read(folder: Path, name: str) -> pd.DataFrame:
    """A file of the source."""
    import pandas as pd

    return pd.read_parquet(folder / f"{name}.parquet")
