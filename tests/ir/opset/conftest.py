"""What the tests of operator families share: an operator looked at without a model around it."""

from __future__ import annotations

import numpy as np
import pytest

from eopt.ir.node import Attrs
from eopt.ir.ops import OpView, Tensor, spec
from eopt.ir.types import DType


def operand(given) -> Tensor | None:
    """None, a tensor, a shape in float32, or an array whose elements are known."""
    if given is None or isinstance(given, Tensor):
        return given
    if isinstance(given, np.ndarray):
        return Tensor(given.shape, DType(given.dtype.name), given)
    return Tensor(tuple(given), DType.FLOAT32)


def look(op: str, inputs, outputs, domain: str = "", opsets=None, **attrs) -> OpView:
    tensors = tuple(operand(given) for given in inputs)
    results = tuple(operand(given) for given in outputs)
    return OpView(op, domain, tensors, results, Attrs.of(**attrs), opsets=opsets or {})


@pytest.fixture(scope="session")
def work():
    def done(*args, **kwargs):
        view = look(*args, **kwargs)
        return spec(view.op, view.domain).work(view)

    return done
