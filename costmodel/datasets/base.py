"""The one typed table of measurements, and what an adapter for a source is.

A row is one measurement of a concrete operator, module or model on one device: the columns of a cost query
(`docs/reference.md`) and what was read. Seconds, watts and joules of one execution; what was not read is null, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

QUERY = ("op", "inputs", "dtype", "weight_dtype", "math", "scale", "attrs", "phase")
"""Columns a cost query has as well; `inputs` are lists of extents, `attrs` JSON with sorted keys or ''."""

COLUMNS: dict[str, str] = {
    "source": "name of the adapter",
    "device": "canonical device: the name of a target sheet",
    "level": "operator, module or model",
    "op": "ONNX operator, `com.microsoft.MoE` with its domain; `Model` or the module's kind above operators",
    "inputs": "extents of every operand, [] for a scalar",
    "dtype": "of the activations: ONNX name, or float8_e4m3, float8_e5m2, float4_e2m1",
    "weight_dtype": "where it differs",
    "math": "ieee or tf32 for float32",
    "scale": "of scaled formats: tensor, channel, block:N, nvfp4, mx",
    "attrs": "JSON of the operator's attributes",
    "phase": "forward, backward or training",
    "executor": "as `--executor`",
    "library": "whose kernel, where known: cublas, cutlass, deepgemm, flash-attention …",
    "workload": "model or micro-benchmark it belongs to; rows of one workload are never split",
    "batch": "samples or sequences of one execution, above operators",
    "latency_s": "of one execution",
    "power_w": "mean over the window",
    "energy_j": "of one execution; where power was read, power times latency",
    "energy_scope": "board, package or wall",
    "clock_hz": "of the cores, where it was fixed or read",
    "power_cap_w": "where it was set",
    "window_s": "length of the reading",
    "noisy": "the source or the adapter distrusts it",
}


@dataclass(frozen=True)
class Dataset:
    """What an adapter makes of its source.

    Attributes:
        rows: a table with `COLUMNS`; a column that is missing is null.
        workloads: the operators of models measured whole, in order: `workload`, `position`, `count` and the columns of
            `QUERY`; None where the source has none.
    """

    rows: pd.DataFrame
    workloads: pd.DataFrame | None = None


@dataclass(frozen=True)
class Source:
    """An adapter: where the files come from and how they become rows.

    Attributes:
        name: also of its folder below the data folder, `latency/…` or `energy/…` in front.
        folder: below the data folder.
        load: reads the folder. Frozen exclusions and duplicates are handled there, and counted in `notes`.
        upstream: address of the repository and commit.
        licence: SPDX identifier, or what is known.
        notes: caveats for the data card.
    """

    name: str
    folder: str
    load: Callable[[Path], Dataset]
    upstream: str
    licence: str
    notes: tuple[str, ...] = ()


def attrs_text(**attributes: Any) -> str:
    """Attributes as the table holds them: JSON with sorted keys, without those that are None; '' for none."""
    import json

    given = {name: value for name, value in attributes.items() if value is not None}
    return json.dumps(given, sort_keys=True, separators=(",", ":")) if given else ""
