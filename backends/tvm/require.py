"""TVM, imported once, in the versions that work together."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from types import FrameType
from typing import Any

from eopt.ir.errors import UsageError

PINNED = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
"""What was tried. A newer `apache-tvm-ffi` imports and compiles, and crashes the process when anything is tuned."""
FIX = "pip install 'eopt[tvm]'"


def require(threads: int = 0) -> Any:
    """The module `tvm`.

    TVM reads the environment when its threads start, so a process measures with one number of threads for ever.
    Whoever starts a worker sets `TVM_NUM_THREADS` and `TVM_BIND_THREADS=0` (TVM pins the calling thread otherwise,
    which slows every other library in the process); what is not set yet is set here.

    Args:
        threads: of the CPU; 0 leaves the number to TVM.

    Raises:
        UsageError: TVM is missing, or another version than the pinned one.
    """
    checked()
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    if threads:
        os.environ.setdefault("TVM_NUM_THREADS", str(threads))
    import tvm

    return tvm


@cache
def checked() -> None:
    """Look at the versions, without importing anything.

    Raises:
        UsageError: naming the distribution and the fix.
    """
    for name, pinned in PINNED.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise UsageError(f"executor tvm: {name} is not installed; {FIX}") from None
        if found != pinned:
            raise UsageError(f"executor tvm: {name} is {found}, and only {pinned} is known to work; {FIX}")


@cache
def intrinsics() -> None:
    """Import TVM's tensor intrinsics, which tuning and features need: 3 s in place of 45 s on Python 3.11.

    Each of their hundreds of functions asks `inspect.stack()` for the source text of every caller and uses none.
    """
    with _stack_without_source():
        import tvm.s_tir.tensor_intrin  # noqa: F401


@contextmanager
def _stack_without_source() -> Iterator[None]:
    original = inspect.stack
    inspect.stack = _stack
    try:
        yield
    finally:
        inspect.stack = original


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    frame: FrameType | None = sys._getframe(1)
    frames = []
    while frame is not None:
        code = frame.f_code
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return frames


def reason(error: BaseException) -> str:
    """The line of a TVM error that says what happened; its messages carry a C++ stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else type(error).__name__)
    return told[:300]
