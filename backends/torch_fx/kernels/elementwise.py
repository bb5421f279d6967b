"""Elementwise operators (https://onnx.ai/onnx/operators/)."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel, plain

plain(
    {
        **{name: getattr(torch, name.lower()) for name in "Abs Ceil Cos Cosh Erf Exp Floor Log Neg Reciprocal".split()},
        **{name: getattr(torch, name.lower()) for name in "Relu Round Sigmoid Sign Sin Sinh Sqrt Tan Tanh".split()},
        **{name: getattr(torch, name.lower()) for name in "Acos Acosh Asin Asinh Atan Atanh Where Sub".split()},
        "Add": torch.add,
        "Mul": torch.mul,
        "Not": torch.logical_not,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
        "Equal": torch.eq,
        "Greater": torch.gt,
        "Less": torch.lt,
        "GreaterOrEqual": torch.ge,
        "LessOrEqual": torch.le,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "BitwiseNot": torch.bitwise_not,
        "IsNaN": torch.isnan,
        "Softsign": F.softsign,
        "Softplus": F.softplus,
        "Mish": F.mish,
        "HardSwish": F.hardswish,
    }
)


@kernel("Identity")
def identity(x: Tensor) -> Tensor:
    """Of anything, sequences included."""
    return x


@kernel("Min", widen=True)
def minimum(*inputs: Tensor) -> Tensor:
    """Of all inputs."""
    return reduce(torch.minimum, inputs)


@kernel("Max", widen=True)
def maximum(*inputs: Tensor) -> Tensor:
    """Of all inputs."""
    return reduce(torch.maximum, inputs)


@kernel("Sum")
def sum_(*inputs: Tensor) -> Tensor:
    """Of all inputs."""
    return reduce(torch.add, inputs)


@kernel("Mean")
def mean(*inputs: Tensor) -> Tensor:
    """Of all inputs."""
    return sum_(*inputs) / len(inputs)


@kernel("Div", widen=True)
def div(a: Tensor, b: Tensor) -> Tensor:
    """Integer division truncates."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


@kernel("Pow", widen=True)
def power(x: Tensor, exponent: Tensor) -> Tensor:
    """In the type of the base."""
    return torch.pow(x, exponent).to(x.dtype)


@kernel("Mod", widen=True)
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """The sign of the divisor, or as C's fmod that of the dividend."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@kernel("BitShift", widen=True)
def bit_shift(x: Tensor, by: Tensor, *, direction: str) -> Tensor:
    """Left or right."""
    return torch.bitwise_left_shift(x, by) if direction == "LEFT" else torch.bitwise_right_shift(x, by)


@kernel("IsInf")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Either sign, or one."""
    nothing = torch.zeros_like(x, dtype=torch.bool)
    found = torch.isposinf(x) if detect_positive else nothing
    return found | torch.isneginf(x) if detect_negative else found


@kernel("Gelu", "com.microsoft.Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Exact or tanh form."""
    return F.gelu(x, approximate=approximate)


@kernel("com.microsoft.FastGelu")
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The tanh form, of x plus a bias."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@kernel("com.microsoft.QuickGelu", "Swish")
def swish(x: Tensor, *, alpha: float | None = None, opset: int = 0) -> Tensor:
    """x sigmoid(alpha x); onnxruntime's QuickGelu defaults to 1.702."""
    alpha = (1.0 if opset > 1 else 1.702) if alpha is None else alpha
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@kernel("SwiGLU")
def swiglu(gate: Tensor, value: Tensor, *, alpha: float = 1.0) -> Tensor:
    """swish(gate) value."""
    return swish(gate, alpha=alpha) * value


@kernel("Clip", widen=True)
def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None, *, min: float | None = None,
         max: float | None = None) -> Tensor:  # fmt: skip
    """Bounds are attributes up to opset 10, inputs from 11 on; where they cross, the upper one wins."""
    low, high = min if low is None else low, max if high is None else high
    return x if low is None and high is None else torch.clamp(x, low, high)


@kernel("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """max(0, min(1, alpha x + beta))."""
    return torch.clamp(alpha * x + beta, 0, 1)


@kernel("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """x, alpha x below 0."""
    return F.leaky_relu(x, alpha)


@kernel("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x, slope x below 0; the slope broadcasts."""
    return torch.where(x < 0, slope * x, x)


@kernel("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x, alpha (e^x - 1) below 0."""
    return F.elu(x, alpha)


@kernel("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha (e^(x/alpha) - 1))."""
    return F.celu(x, alpha)


@kernel("Selu")
def selu(x: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
    """gamma elu(x, alpha)."""
    return gamma * F.elu(x, alpha)


@kernel("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x above alpha, else 0."""
    return F.threshold(x, alpha, 0.0)


@kernel("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """Towards 0 by the bias outside of +-lambda, 0 inside."""
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


@kernel("com.microsoft.BiasGelu")
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """gelu(x + bias)."""
    return F.gelu(x + bias)
