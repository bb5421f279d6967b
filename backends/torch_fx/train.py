"""Which weights learn, and the way back of what they have learnt."""

from __future__ import annotations

from typing import Any

from eopt.ir.model import Model
from eopt.ir.types import DType

_FLOATS = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64)
_HELD = {"BatchNormalization": (3, 4), "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}
"""Statistics and scales are measured, not learnt."""


def learnable(model: Model) -> frozenset[str]:
    """Floating-point weights but for scalars, which exporters use for literals, running statistics, and scales."""
    held = {
        name
        for op in model.leaves()
        for place in _HELD.get(op.op, ())
        if place < len(op.inputs) and (name := op.inputs[place])
    }
    names = (name for name in model.weights if model.weights.dtype(name) in _FLOATS and model.weights.shape(name))
    return frozenset(name for name in names if name not in held)


def trained(model: Model, module: Any) -> Model:
    """The model with the weights its lowering (`lower(model, trainable=...)`) has now; the others are shared."""
    from eopt.backends.torch_fx.kernels.dtypes import array

    parameters = dict(module.named_parameters())
    learnt = {
        name: array(parameters[attribute].to(_dtype(model, name)))
        for attribute, name in module.meta["weight_names"].items()
        if parameters[attribute].requires_grad
    }
    return model.with_weights(learnt)


def _dtype(model: Model, name: str) -> Any:
    from eopt.backends.torch_fx.kernels.dtypes import torch_dtype

    return torch_dtype(model.weights.dtype(name))
