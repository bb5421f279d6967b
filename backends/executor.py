"""Executors: who runs a model on a target, which kernels it has there and what it fuses by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

import yaml

from eopt.backends import capability
from eopt.backends.capability import MATRIX, Capability
from eopt.backends.target import Target
from eopt.ir.errors import UsageError
from eopt.ir.types import DType


@dataclass(frozen=True)
class Executor:
    """An engine with its capabilities; the files in `backends/executors/` say where each fact is from.

    Attributes:
        kinds, vendors: targets it runs on; no vendors means any.
        launch_s: host and device overhead of one kernel.
        graph_launch_s: the same where the device replays a captured graph; None where none can be captured.
        captured: kernels are replayed from a graph, not launched one by one by the host.
        trains: it runs backward passes.
        kernels: by dtype of a contraction, the target features of which one must be present (none listed: always).
        fusions: what it fuses at run time (`epilogue`, `pointwise`, `norm`, `gelu`, `attention`); what it does
            with QDQ is in its capabilities.
        conv_math: arithmetic of a float32 convolution, `ieee` or `tf32`.
        capabilities: formats of low precision and the operators that have kernels for them.
        int8_window_s: seconds of a core for every place of the kernel an int8 convolution gathers.
        quantized_conv_needs_output: an int8 convolution must be followed by QuantizeLinear.
    """

    name: str
    summary: str
    kinds: tuple[str, ...]
    vendors: tuple[str, ...]
    launch_s: float
    kernels: Mapping[str, tuple[str, ...]]
    fusions: frozenset[str]
    capabilities: tuple[Capability, ...] = ()
    conv_math: str = "ieee"
    quantized_conv_needs_output: bool = False
    int8_window_s: float = 0.0
    graph_launch_s: float | None = None
    captured: bool = False
    trains: bool = False

    def __hash__(self) -> int:
        return hash(self.name)

    def runs_on(self, target: Target) -> bool:
        """True when this pair exists."""
        return target.kind in self.kinds and (not self.vendors or target.vendor in self.vendors)

    def in_graph(self) -> Executor:
        """The same with a model's kernels captured once and replayed by the device; itself where that is always so.

        Raises:
            UsageError: it captures none.
        """
        if self.captured:
            return self
        if self.graph_launch_s is None:
            able = ", ".join(name for name in names() if load(name).captured or load(name).graph_launch_s)
            raise UsageError(f"executor {self.name} captures no graphs; {able} do")
        return replace(self, launch_s=self.graph_launch_s, captured=True)

    def has_kernel(self, dtype: DType | str, target: Target) -> bool:
        """True when a contraction in this type runs natively on the target."""
        family = _family(dtype)
        needed = self.kernels.get(family)
        if needed is None:
            return False
        in_sheet = MATRIX in needed and family in target.matrix
        return not needed or in_sheet or bool(target.features.intersection(needed))

    def capability(self, format: str, op: str, target: Target) -> Capability | None:
        """The row that says this operator has a kernel in this format on the target; None where there is none."""
        rows = (row for row in self.capabilities if row.format == format and op in row.ops and row.on(target))
        return next(rows, None)


def _family(dtype: DType | str) -> str:
    name = str(dtype)
    return "int8" if name == "uint8" else name[:6] if name.startswith(("float8", "float4")) else name


def names() -> list[str]:
    """Names of all executors."""
    folder = files("eopt.backends.executors")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


@cache
def load(name: str) -> Executor:
    """An executor by name.

    Raises:
        UsageError: no such executor.
    """
    if name not in names():
        close = get_close_matches(name, names(), 3)
        raise UsageError(f"no executor {name!r}; {'did you mean ' + ', '.join(close) if close else 'known are'} "
                         f"{'' if close else ', '.join(names())}".rstrip())  # fmt: skip
    sheet = yaml.safe_load(files("eopt.backends.executors").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return Executor(
        name=name,
        summary=sheet["summary"],
        kinds=tuple(sheet["kinds"]),
        vendors=tuple(sheet.get("vendors", ())),
        launch_s=float(sheet["launch_us"]) * 1e-6,
        kernels={dtype: tuple(features) for dtype, features in sheet["kernels"].items()},
        fusions=frozenset(sheet["fusions"]),
        capabilities=capability.read(sheet.get("formats", ())),
        conv_math=sheet.get("conv_math", "ieee"),
        int8_window_s=float(sheet.get("int8_window_ns", 0.0)) * 1e-9,
        quantized_conv_needs_output=bool(sheet.get("quantized_conv_needs_output", False)),
        graph_launch_s=float(sheet["graph_launch_us"]) * 1e-6 if "graph_launch_us" in sheet else None,
        captured=bool(sheet.get("captured", False)),
        trains=bool(sheet.get("trains", False)),
    )


def default_for(target: Target) -> Executor:
    """The engine most people run on a target."""
    if target.vendor == "nvidia" and target.kind != "cpu":
        return load("tensorrt")
    return load("onnxruntime" if target.kind == "cpu" or target.vendor == "raspberry" else "torch-compile")
