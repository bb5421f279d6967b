"""Costs read off TVM's own kernels, without a device: for operators whose ONNX form eopt has no formula for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from eopt.backends.base import Array
from eopt.backends.harness.base import Workload
from eopt.backends.tvm import place as places
from eopt.backends.tvm.lower import Lowered, lowered, on_gpu, target_of
from eopt.backends.tvm.require import intrinsics, reason
from eopt.backends.tvm.schedule import as_it_comes
from eopt.ir.errors import InputError

FEATURES = 164
"""Of each store, by `PerStoreFeature`: loops, arithmetic, accesses and their reuse, allocation, annotations."""
GENERIC: Mapping[str, Any] = {"kind": "llvm", "num-cores": 1}


def flops(onnx: bytes) -> float:
    """Floating-point and integer operations of one execution, by TVM's `estimate_tir_flops` over all kernels called.

    Raises:
        InputError: TVM cannot import the model, or count one of its kernels (data-dependent loops).
    """
    from tvm.s_tir.analysis import estimate_tir_flops

    model = _model(onnx, GENERIC)
    counts = _counts(model)
    try:
        return float(sum(counts[name] * estimate_tir_flops(_alone(each)) for name, each in model.kernels.items()))
    except Exception as error:  # a plain RuntimeError of TVM's
        raise InputError(f"model: TVM cannot count its operations: {reason(error)}") from None


def moved_bytes(onnx: bytes) -> float:
    """Bytes that kernels read and write at least: every argument of every call once, by its shape.

    Raises:
        InputError: TVM cannot import the model.
    """
    model = _model(onnx, GENERIC)
    counts = _counts(model)
    sizes = {name: sum(map(_bytes, places.signature(each))) for name, each in model.kernels.items()}
    return float(sum(counts[name] * size for name, size in sizes.items()))


def features(onnx: bytes, attributes: Mapping[str, Any] = GENERIC) -> Array:
    """MetaSchedule's features of every store of every kernel for a TVM target: float64 (n, 164). No device is needed.

    Raises:
        InputError: TVM cannot import the model.
        UsageError: TVM refuses the target.
    """
    import tvm
    from tvm import s_tir
    from tvm.s_tir.meta_schedule import TuneContext
    from tvm.s_tir.meta_schedule.feature_extractor import PerStoreFeature
    from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

    model, target = _model(onnx, attributes), target_of(attributes)
    intrinsics()
    rows: list[Array] = []
    for kernel in model.kernels.values():
        module = tvm.IRModule({"main": as_it_comes(kernel, target) if on_gpu(target) else kernel})
        context = TuneContext(mod=_alone(kernel), target=target, num_threads=1)
        candidate = MeasureCandidate(s_tir.Schedule(module), [])
        rows += [each.numpy() for each in PerStoreFeature().extract_from(context, [candidate])]
    return np.concatenate(rows) if rows else np.zeros((0, FEATURES))


def _model(onnx: bytes, attributes: Mapping[str, Any]) -> Lowered:
    return lowered(Workload("model", onnx), target_of(attributes))


def _alone(function: Any) -> Any:
    import tvm

    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def _counts(model: Lowered) -> Counter[str]:
    return Counter(call.args[0].name_hint for call in model.calls())


def _bytes(parameter: tuple[tuple[int, ...], str]) -> int:
    shape, dtype = parameter
    return prod(shape) * int(places.empty((), dtype).itemsize)
