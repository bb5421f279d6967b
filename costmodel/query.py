"""The question a cost model answers, and the answer: one kernel on one target by one executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, runtime_checkable

from eopt.backends.base import Unknown as Unknown
from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.ir.ops import Trait, Unit, spec
from eopt.ir.types import DType


class Basis(StrEnum):
    """Where a figure comes from."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    EXTRAPOLATED = "extrapolated"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the bounds of its 90 % interval."""

    mid: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Whole:
    """Latency and gross energy of one execution of a whole model: its kernels, and all that is between them."""

    latency_s: Interval
    energy_j: Interval


@dataclass(frozen=True, slots=True)
class Kernel:
    """A concrete kernel: what is executed at once, an operator or a fused group.

    Attributes:
        name: the operator that dominates it, as `Conv` or `com.microsoft.FusedConv`.
        flops: arithmetic by unit and dtype.
        activation_bytes: bytes of activations crossing its boundary, in and out.
        weight_bytes: bytes of weights it reads.
        gemm: (batch, m, n, k) of its contraction, if it has one: tiles and waves follow from it.
        elements: elements of its largest result: the parallelism of vector work.
        scale: how its numbers are scaled: '', tensor, channel, block, nvfp4 or mx.
        math: arithmetic of float32 products, ieee or tf32; '' leaves it to the executor.
        row: elements along the last axis of what it reads: normalisations and softmax go over rows.
        weight_bits: of weights, or of keys and values, where they differ from the arithmetic; 0 where they do not.
        sharing: heads of queries that share the keys of one head.
        windows: places of its kernel that a convolution gathers for all outputs; 0 where it reads pixel by pixel.
    """

    name: str
    flops: tuple[tuple[Unit, DType, float], ...]
    activation_bytes: float
    weight_bytes: float
    gemm: tuple[int, int, int, int] | None = None
    elements: int = 1
    scale: str = ""
    math: str = ""
    row: int = 1
    weight_bits: int = 0
    sharing: int = 1
    windows: int = 0

    @property
    def family(self) -> str:
        """Kernels that are written alike: gemm, conv, attention, decode, moe, norm, softmax, pointwise or move."""
        return family(self.name, self.gemm)


@dataclass(frozen=True, slots=True)
class Cost:
    """Latency and gross energy of one execution.

    Attributes:
        energy_scope: `board` for accelerators, `package` for CPUs: what the joules are drawn by.
        terms: joules by cause (static, flops, dram, llc).
        launch_s: the part of the latency that is launching, not working.
        reasons: what was assumed.
    """

    latency_s: Interval
    energy_j: Interval
    energy_scope: str
    basis: Basis
    terms: Mapping[str, float]
    launch_s: float
    reasons: tuple[str, ...] = ()

    @property
    def power_w(self) -> float:
        """Mean power over the latency."""
        return self.energy_j.mid / self.latency_s.mid


@lru_cache(maxsize=1 << 16)
def family(name: str, gemm: tuple[int, int, int, int] | None) -> str:
    """The family of an operator; attention over one query is `decode`, whose kernels split the keys instead."""
    base = name.rpartition(".")[2]
    if "Conv" in base:
        return "conv"
    if "Attention" in base:
        return "decode" if gemm is not None and gemm[1] == 1 else "attention"
    if "MoE" in base:
        return "moe"
    if gemm is not None:
        return "gemm"
    if "Normalization" in base:
        return "norm"
    if "Softmax" in base:
        return "softmax"
    described = spec(base, name.rpartition(".")[0])
    traits = described.traits if described else frozenset[Trait]()
    return "pointwise" if Trait.ELEMENTWISE in traits else "move"


@runtime_checkable
class WholeCostModel(Protocol):
    """A cost model that also says what a model takes whole, which is not the sum of its kernels."""

    def whole(
        self, kernels: Sequence[Kernel], counts: Sequence[int], target: Target, executor: Executor, training: bool
    ) -> Whole | None:
        """All kernels of one execution or step, and how often each runs; None where it cannot say."""
        ...


class CostModel(Protocol):
    """Anything that prices kernels."""

    def query(self, kernel: Kernel, target: Target, executor: Executor) -> Cost | Unknown:
        """Cost of one execution of a kernel."""
        ...

    def query_many(self, kernels: Sequence[Kernel], target: Target, executor: Executor) -> list[Cost | Unknown]:
        """Costs of several kernels."""
        ...
