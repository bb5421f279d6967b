"""Linear and support vector models, and what prepares numbers for them, of the domain ai.onnx.ml."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Unit, Work, declare
from eopt.ir.opset.shared import EXP, SOFTMAX, kept, vector

_ML = "ai.onnx.ml"
PER_ELEMENT = {"Binarizer": 1, "Imputer": 1, "Normalizer": 3, "Scaler": 2}


def _linear(view: OpView) -> Work:
    """2 per coefficient and sample, then 14 per score; coefficients are attributes and read once."""
    x, features = view.input(0), view.input(0).shape[-1]
    coefficients = len(view.attrs["coefficients"])
    rows = x.numel // features
    flops = rows * (2 * coefficients + SOFTMAX * coefficients // features)
    written = sum(tensor.nbytes for tensor in view.outputs)
    return Work(float(flops), x.nbytes + 4 * coefficients, written, Unit.VECTOR, x.dtype)


def _support_vectors(view: OpView) -> Work:
    """2 per feature and support vector, an exponential for each unless the kernel is linear, then 2 per coefficient."""
    x, features = view.input(0), view.input(0).shape[-1]
    values, coefficients = len(view.attrs.get("support_vectors", ())), len(view.attrs["coefficients"])
    kernel = 0 if view.attrs.get("kernel_type", "LINEAR") == "LINEAR" else EXP
    per_row = 2 * values + kernel * values // features + 2 * coefficients
    written = sum(tensor.nbytes for tensor in view.outputs)
    read = x.nbytes + 4 * (values + coefficients)
    return Work(float(x.numel // features * per_row), read, written, Unit.VECTOR, x.dtype)


def _each(view: OpView) -> Work:
    """By operator, per element of the result."""
    return vector(view, PER_ELEMENT[view.op] * view.outputs[0].numel)


def _rows(view: OpView) -> tuple[Tie, ...]:
    """Samples are independent."""
    ports = ["x0", *(f"y{number}" for number in range(len(view.outputs)))]
    return kept(view, range(1, len(view.input(0).shape)), ports)


declare(["LinearClassifier", "LinearRegressor"], _linear, _rows, domain=_ML)
declare(["SVMClassifier", "SVMRegressor"], _support_vectors, _rows, domain=_ML)
declare(PER_ELEMENT, _each, _rows, domain=_ML)
