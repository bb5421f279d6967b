"""Where compiled code runs: in this process, or on a device behind TVM's RPC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from eopt.backends.base import Array

Signature = Sequence[tuple[tuple[int, ...], str]]


class Place(Protocol):
    """A device that takes compiled code.

    Attributes:
        device: as TVM addresses it.
    """

    device: Any

    def load(self, compiled: Any) -> Any:
        """The runtime module of an executable, on the device."""
        ...


class Local:
    """A device of this machine.

    Args:
        device: `cpu` or `cuda`.
    """

    def __init__(self, device: str) -> None:
        import tvm

        self.device = tvm.runtime.device(device, 0)

    def load(self, compiled: Any) -> Any:
        """See `Place.load`."""
        return compiled.jit()


class Remote:
    """A device of an RPC session. It links what it is sent, so a compiler driver must be installed there.

    Args:
        session: an open `tvm.rpc.RPCSession`.
        device: `cpu` or `cuda`.
    """

    def __init__(self, session: Any, device: str) -> None:
        self.session, self.count = session, 0
        self.device = session.device(device, 0)

    def load(self, compiled: Any) -> Any:
        """See `Place.load`."""
        from tvm.support import tar

        self.count += 1
        name = f"eopt-{self.count}.tar"
        with TemporaryDirectory(prefix="eopt-") as folder:
            path = Path(folder) / name
            getattr(compiled, "mod", compiled).export_library(str(path), fcompile=tar.tar)
            self.session.upload(str(path))
        return self.session.load_module(name)


def compiled(function: Any, target: Any) -> Any:
    """An executable of one kernel, by the name `main`."""
    import tvm

    return tvm.compile(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}), target=target)


def signature(function: Any) -> Signature:
    """Shape and dtype of each parameter of a kernel; outputs come last."""
    return [(tuple(int(extent) for extent in param.shape), str(param.dtype)) for param in function.params]


def arguments(function: Any, place: Place, seed: int = 0) -> list[Any]:
    """Seeded tensors on the device for every parameter of a kernel; integers may be indices, so they are 0 or 1."""
    import tvm

    generator = np.random.default_rng(seed)
    return [tvm.runtime.tensor(_drawn(generator, *each), place.device) for each in signature(function)]


def empty(shape: tuple[int, ...], dtype: str) -> Array:
    """An array a kernel writes to; `dtype` may be one numpy itself does not have."""
    import ml_dtypes

    return np.zeros(shape, getattr(ml_dtypes, dtype, None) or dtype)


def _drawn(generator: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    import ml_dtypes

    if dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.startswith(("int", "uint")):
        return generator.integers(0, 2, shape).astype(dtype)
    known = getattr(ml_dtypes, dtype, None)
    return generator.standard_normal(shape, np.float32).astype(known or dtype)


def seconds(module: Any, args: Sequence[Any], place: Place, window_s: float = 0.02) -> float:
    """Median seconds of a kernel over three windows, by TVM's own evaluator."""
    evaluator = module.time_evaluator("main", place.device, number=1, repeat=3, min_repeat_ms=int(window_s * 1e3))
    return float(np.median(evaluator(*args).results))
