"""NeuSight: operators measured one at a time, in float32 by eager torch 2.1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.backends.target import load
from eopt.costmodel.datasets.base import attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {
    "AMD Instinct MI100": "amd-mi100",
    "AMD Instinct MI210": "amd-mi210",
    "AMD Instinct MI250": "amd-mi250",
    "NVIDIA A100-PCIE-40GB": "nvidia-a100-40gb-pcie",
    "Tesla P4": "nvidia-p4",
    "Tesla P100-PCIE-16GB": "nvidia-p100-16gb-pcie",
    "Tesla T4": "nvidia-t4",
    "Tesla V100-PCIE-32GB": "nvidia-v100-32gb-pcie",
}
FILES = ("ops_nvidia", "ops_amd")

EXTENTS = {
    "linear": ["M", "N", "K"],
    "bmm": ["B", "M", "N", "K"],
    "conv": ["B", "Input_Channel", "Output_Channel", "Input_Size", "Kernel_Size", "Stride", "Padding"],
}
"""Columns that say the extents; `B` and `H` for every other operator."""

BINARY = {"add": "Add", "div": "Div", "mul": "Mul", "pow": "Pow"}
UNARY = {"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh", "softmax": "Softmax", "ln": "LayerNormalization"}
LAST_AXIS = attrs_text(axis=-1)


def vector(name: str, shape: list[int]) -> tuple[str, list[list[int]], str]:
    """Operator, operands and attributes of work on every element of one shape; names as the source has them."""
    if name == "ln":
        return UNARY[name], [shape, shape[-1:], shape[-1:]], LAST_AXIS
    if name in UNARY:
        return UNARY[name], [shape], LAST_AXIS if name == "softmax" else ""
    if name in BINARY:
        return BINARY[name], [shape, list(shape)], ""
    return BINARY[name.removesuffix("u")], [shape, []], ""


def _linear(m: int, n: int, k: int) -> tuple[str, list[list[int]], str]:
    return "Gemm", [[m, k], [k, n], [n]], ""


def _bmm(b: int, m: int, n: int, k: int) -> tuple[str, list[list[int]], str]:
    return "MatMul", [[b, m, n], [b, n, k]], ""


def _conv(b: int, cin: int, cout: int, size: int, kernel: int, stride: int, padding: int) -> tuple[Any, ...]:
    return "Conv", [[b, cin, size, size], [cout, cin, kernel, kernel]], _conv_attrs(stride, padding)


def _conv_attrs(stride: int, padding: int) -> str:
    return attrs_text(strides=[stride] * 2, pads=[padding] * 4)


SHAPED: dict[str, Callable[..., tuple[Any, ...]]] = {"linear": _linear, "bmm": _bmm, "conv": _conv}
MATH = {"linear": "ieee", "bmm": "ieee", "conv": "tf32"}
"""What torch asks for by default; a device without TF32 computes in float32 all the same."""


def rows(folder: Path) -> pd.DataFrame:
    """A row per device, operator and shape: the median of repeats. Kernel names and grids are a leak and stay behind.

    Raises:
        UsageError: a device without a sheet.
    """
    import pandas as pd

    frame = pd.concat([pd.read_parquet(folder / f"{name}.parquet") for name in FILES], ignore_index=True)
    return pd.concat([_operator(name, table) for name, table in frame.groupby("OPName")], ignore_index=True)


def _operator(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    extents = EXTENTS.get(name, ["B", "H"])
    table = frame.groupby(["Device", *extents], sort=False)["latency_ms"].median().reset_index()
    shapes = zip(*(table[column].astype(int).tolist() for column in extents), strict=True)
    build = SHAPED.get(name)
    built = [build(*shape) if build else vector(name, list(shape)) for shape in shapes]
    devices = {device: load(DEVICES.get(device, device)).name for device in table["Device"].unique()}
    return table.assign(
        device=table["Device"].map(devices),
        level="operator",
        op=[op for op, _, _ in built],
        inputs=[inputs for _, inputs, _ in built],
        math=MATH.get(name),
        attrs=[attrs for _, _, attrs in built],
        phase="forward",
        workload=f"micro:{name}",
        latency_s=table["latency_ms"].astype(float) * 1e-3,
    ).drop(columns=["Device", "latency_ms", *extents])
