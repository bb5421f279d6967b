"""What an executor's 8-bit kernels ask of the numbers: type, symmetry, range and bias."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from eopt.backends import detect
from eopt.ir.errors import UsageError
from eopt.ir.types import DType
from eopt.passes.quant import params
from eopt.passes.quant.params import Grid

if TYPE_CHECKING:
    from eopt.backends.executor import Executor
    from eopt.backends.target import Target

FULL_RANGE, REDUCED_RANGE = 127, 63


class Format(StrEnum):
    """When activations are quantised: on grids from calibration, on grids found at run time, or not at all."""

    STATIC = "static"
    DYNAMIC = "dynamic"
    WEIGHT_ONLY = "weight-only"

    @property
    def rule(self) -> str:
        """What changes to this format are called in reports."""
        return {"static": "int8", "dynamic": "int8, dynamic"}.get(self, str(self))


class Place(StrEnum):
    """Quantise all that can be, or choose for every operator by joules."""

    ALL = "all"
    COST = "cost"


class WeightType(StrEnum):
    """Type of quantised weights: whole products compute in it, or, weight-only, it is turned into floats first."""

    INT8 = "int8"
    INT4 = "int4"
    FLOAT8 = "float8"


class Activation(StrEnum):
    """Type of quantised activations; auto takes what the executor has the fastest kernels for."""

    AUTO = "auto"
    UINT8 = "uint8"
    INT8 = "int8"


@dataclass(frozen=True)
class Scheme:
    """How numbers are laid out.

    Attributes:
        dtype: of activations.
        weight: type of weights.
        symmetric: activations have the zero point 0.
        weight_limit: largest magnitude of a weight.
        integer_bias: biases are stored as int32.
    """

    dtype: DType
    weight: DType
    symmetric: bool
    weight_limit: float
    integer_bias: bool

    def grid(self, low: float, high: float) -> Grid:
        """The grid of an activation seen in this range."""
        return params.symmetric(low, high, self.dtype) if self.symmetric else params.asymmetric(low, high, self.dtype)


def scheme(weight: WeightType, activation: Activation, target: Target | None, executor: Executor | None) -> Scheme:
    """The scheme for a target and executor; without them, that of onnxruntime on the CPU of this machine.

    Raises:
        UsageError: activations of a type that has no kernels with such weights.
    """
    if weight == WeightType.FLOAT8:
        return _float8(activation)
    if on_accelerator(target, executor):
        if activation == Activation.UINT8:
            raise UsageError(
                "quant{activation=uint8}: this target computes on int8 with zero point 0; use int8 or auto"
            )
        return Scheme(DType.INT8, DType.INT8, symmetric=True, weight_limit=FULL_RANGE, integer_bias=False)
    dtype = DType.INT8 if activation == Activation.INT8 else DType.UINT8
    return Scheme(dtype, DType.INT8, symmetric=False, weight_limit=_weight_limit(target), integer_bias=True)


def _float8(activation: Activation) -> Scheme:
    """E4M3 for weights and activations (Micikevicius et al. 2022, arXiv:2209.05433): inference needs no wider range."""
    if activation != Activation.AUTO:
        raise UsageError(f"quant{{weight=float8,activation={activation}}}: no kernel mixes these; leave activation out")
    kind = DType.FLOAT8E4M3FN
    return Scheme(kind, kind, symmetric=True, weight_limit=params.largest(kind), integer_bias=False)


def on_accelerator(target: Target | None, executor: Executor | None) -> bool:
    """True where no CPU kernels run the result."""
    if executor is not None:
        return "cpu" not in executor.kinds
    return target is not None and target.kind != "cpu"


def _weight_limit(target: Target | None) -> int:
    """7-bit weights cannot overflow the 16 bits where sums saturate."""
    features = detect.cpu_features() if target is None else target.features
    return REDUCED_RANGE if detect.saturates(features) else FULL_RANGE
