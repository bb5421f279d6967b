"""AIConfigurator: quantisation, and modules no single operator stands for (latent and linear attention, Mamba)."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets import aic

if TYPE_CHECKING:
    import pandas as pd

MODULES = {
    "power_mla_ctx": ("MLA", "context"),
    "power_mla_gen": ("MLA", "generation"),
    "power_context_mla": ("MLAAttention", "context"),
    "power_generation_mla": ("MLAAttention", "generation"),
    "power_dsa_ctx": ("DSA", "context"),
    "power_dsa_gen": ("DSA", "generation"),
    "power_gdn": ("GatedDeltaNet", None),
    "power_mamba2": ("Mamba2", None),
}
"""File -> kind of the module and its stage; None where a column says it. MLAAttention is MLA without projections."""

_MEASURED = {"system", "fw", "ver", "latency", "power", "power_limit"}
_NAMES = {"kernel_source": "kernel", "phase": "stage"}
_OWN = {"batch_size", "isl", "seq_len", "mla_dtype", "model", "model_name"}  # have a column of the table
_TO = '{"to":"float8_e4m3"}'


def load(folder: Path) -> list[pd.DataFrame]:
    """Rows of every other file."""
    modules = [module(aic.read(folder, name), *of) for name, of in MODULES.items()]
    return [*modules, *quantize(aic.read(folder, "power_scale_matrix"), aic.read(folder, "power_computescale"))]


def module(frame: pd.DataFrame, kind: str, stage: str | None) -> pd.DataFrame:
    """Rows of a kind of module, [[batch, new tokens]] its inputs, every column without a place of its own in attrs."""
    shape = [name for name in frame if name not in _MEASURED]
    table = aic.measured(frame, shape)
    others = [name for name in shape if name not in _OWN]
    attrs = {_NAMES.get(name, name): table[name].tolist() for name in others}
    length = "isl" if "isl" in shape else "seq_len"
    model = next((name for name in ("model", "model_name") if name in shape), None)
    # "default" names no kernel
    attrs["kernel"] = [None if name == "default" else name for name in attrs["kernel"]]
    return aic.rows(
        table.assign(library=None),
        level="module",
        op=kind,
        inputs=[[list(pair)] for pair in zip(table["batch_size"].tolist(), table[length].tolist(), strict=True)],
        dtype=table["mla_dtype"].astype(object).map(aic.DTYPES) if "mla_dtype" in shape else "bfloat16",
        attrs=aic.attributes(**attrs) if stage is None else aic.attributes(**attrs, stage=repeat(stage)),
        workload=table[model].astype(object) if model else f"micro:{kind}",
        batch=table["batch_size"],
    )


def quantize(given: pd.DataFrame, difference: pd.DataFrame) -> list[pd.DataFrame]:
    """Quantisation with a given scale, as measured, and with a computed one.

    The collector's `computescale` is no measurement: it is the latency of quantising with a computed scale less that
    with a given one. Their sum is the former; its power was read, but over a window that is not in the file.
    """
    static = aic.measured(given, ["m", "k"])
    keys = ["device", "executor", "m", "k"]
    dynamic = static.merge(aic.measured(difference, ["m", "k"])[[*keys, "latency_s"]], on=keys, suffixes=("", "_more"))
    dynamic = dynamic.assign(latency_s=dynamic["latency_s"] + dynamic["latency_s_more"], noisy=False)
    dynamic = dynamic.drop(columns=["power_w", "energy_j", "energy_scope", "power_cap_w"])
    common = {"dtype": "bfloat16", "attrs": _TO, "workload": "micro:quantize"}
    return [
        aic.rows(static, op="QuantizeLinear", inputs=[[[m, k], []] for m, k in _extents(static)], **common),
        aic.rows(dynamic, op="DynamicQuantizeLinear", inputs=[[[m, k]] for m, k in _extents(dynamic)], **common),
    ]


def _extents(table: pd.DataFrame) -> zip[tuple[int, int]]:
    return zip(table["m"].tolist(), table["k"].tolist(), strict=True)
