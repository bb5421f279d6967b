"""Engines by executor."""

from __future__ import annotations

from eopt.backends.harness.base import Engine, Setup
from eopt.ir.errors import UsageError

LIBRARY = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "onnxruntime-cuda": ("onnxruntime-gpu",),
    "torch": ("torch",), "torch-compile": ("torch",), "tvm": ("apache-tvm",),
}  # fmt: skip
"""The distributions an executor comes in, the usual one first."""
_EXTRAS = {"torch": "torch", "torch-compile": "torch", "tvm": "tvm"}


def engine(setup: Setup) -> Engine:
    """The engine of a setup; its library is imported now.

    Raises:
        UsageError: no measurements through this executor, or its library is not installed.
    """
    try:
        return _engine(setup)
    except ImportError:
        raise unavailable(setup.executor) from None


def unavailable(executor: str) -> UsageError:
    """Why an executor cannot be measured here, and the fix."""
    if executor not in LIBRARY:
        return UsageError(f"executor {executor} cannot be measured by eopt; {', '.join(LIBRARY)} can")
    extra = _EXTRAS.get(executor)
    fix = f"pip install 'eopt[{extra}]'" if extra else f"pip install {LIBRARY[executor][0]}"
    return UsageError(f"executor {executor} is not installed here; {fix}")


def _engine(setup: Setup) -> Engine:
    if setup.executor in ("onnxruntime", "onnxruntime-cuda"):
        from eopt.backends.harness.engine_ort import OrtEngine

        return OrtEngine(setup)
    if setup.executor in ("torch", "torch-compile"):
        from eopt.backends.harness.engine_torch import TorchEngine

        return TorchEngine(setup)
    if setup.executor == "tvm":
        from eopt.backends.tvm.engine import TvmEngine

        return TvmEngine(setup)
    raise unavailable(setup.executor)
