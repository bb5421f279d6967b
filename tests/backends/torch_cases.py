"""The operator cases of the onnx backend suite, run by the torch lowering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case import node as node_cases

from eopt.ir import onnx_io
from eopt.ir.errors import EoptError

RANDOM = ("Bernoulli", "RandomUniformLike", "RandomNormalLike", "Multinomial")


@dataclass(frozen=True)
class Result:
    """How a case went: `right`, `wrong`, `random` (nothing to compare), `refused` with a reason, `failed` in torch."""

    name: str
    outcome: str
    detail: str = ""


def run_all(part: str = "") -> list[Result]:
    """Every case whose name contains `part`."""
    return [run(case) for case in node_cases.collect_testcases(None) if part in case.name]


def run(case: Any) -> Result:
    """Lower the model of a case and run it on the data of the case."""
    from eopt.backends.torch_fx import lower

    try:
        model = onnx_io.from_proto(case.model)
        module = lower(model)
    except EoptError as error:
        return Result(case.name, "refused", str(error))
    if any(node.op_type in RANDOM or _draws(node) for node in case.model.graph.node):
        return Result(case.name, "random")
    for inputs, outputs in case.data_sets:
        named = dict(zip((value.name for value in case.model.graph.input), inputs, strict=True))
        try:
            actual = module(*(_torch(named[value.id]) for value in model.feeds))
        except EoptError as error:
            return Result(case.name, "refused", str(error))
        except Exception as error:  # what torch has no kernel for at this type, said in torch's many ways
            return Result(case.name, "failed", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        detail = "; ".join(filter(None, map(_difference, actual, outputs, [case] * len(outputs))))
        if detail or len(actual) != len(outputs):
            return Result(case.name, "wrong", detail)
    return Result(case.name, "right")


def _draws(node: Any) -> bool:
    return node.op_type == "Dropout" and len(node.input) > 2


def _torch(value: Any) -> Any:
    from eopt.backends.torch_fx.kernels.dtypes import tensor

    if isinstance(value, list) or value is None:
        return None if value is None else [_torch(item) for item in value]
    return tensor(_array(value))


def _array(value: Any) -> Any:
    """Cases of sub-byte and 8-bit types come as messages."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _difference(actual: Any, expected: Any, case: Any) -> str:
    """Types as ONNX has them, but for sub-byte integers, which torch keeps in bytes. The tolerance is that of the case,
    and never below two units in the last place of the largest element: sums are taken in another order."""
    from eopt.backends.torch_fx.kernels.dtypes import array

    if isinstance(expected, list):
        parts = [_difference(a, b, case) for a, b in zip(actual, expected, strict=True)]
        return "; ".join(filter(None, parts))
    if actual is None or expected is None:
        return "" if actual is expected else "one is None"
    a, b = array(actual), _array(expected)
    if b.dtype.name in ("int4", "uint4", "int2", "uint2"):
        b = b.astype(np.int8 if b.dtype.name.startswith("i") else np.uint8)
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
    if a.dtype.kind not in "biuc":
        a, b = a.astype(np.float64), b.astype(np.float64)
    unit = float(ml_dtypes.finfo(np.asarray(_array(expected)).dtype).eps) if b.dtype.kind == "f" else 0.0
    largest = np.abs(b[np.isfinite(b)]).max(initial=0) if b.dtype.kind == "f" else 0.0
    rtol, atol = max(case.rtol, 2 * unit), max(case.atol, 2 * unit * largest)
    if np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"differs by {np.abs(a.astype('f') - b.astype('f')).max()}"
