"""Where the families register their kernels.

Inputs of an operator are positional parameters of its kernel, attributes are keyword-only. A kernel may also ask for
`outputs` (how many), `opset` (of its domain) and `types` (ONNX names of the input types, None where unknown).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


@dataclass(frozen=True)
class Kernel:
    """A function with the semantics of an operator.

    Attributes:
        host: positions of inputs that steer the kernel: Python lists or numbers, never device tensors.
        keywords: attributes it understands; None for a torch function, which understands none.
        widen: torch has few kernels for wide unsigned integers; this one may run in int64 and be cut back.
    """

    function: Callable[..., Any]
    host: tuple[int, ...] = ()
    keywords: frozenset[str] = frozenset()
    widen: bool = False


KERNELS: dict[str, Kernel] = {}

Function = Callable[..., Any]


def kernel(*names: str, host: tuple[int, ...] = (), widen: bool = False) -> Callable[[Function], Function]:
    """Register a function for these operators; `domain.Name` outside the default domain."""

    def register(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        keywords = frozenset(item.name for item in parameters if item.kind is item.KEYWORD_ONLY)
        KERNELS.update(dict.fromkeys(names, Kernel(function, host, keywords, widen)))
        return function

    return register


def plain(table: dict[str, Function]) -> None:
    """Register functions that take the operator's inputs and none of its attributes."""
    for name, function in table.items():
        KERNELS[name] = Kernel(function, widen=True)


def widened(function: Function, *inputs: Any, **attributes: Any) -> Any:
    """Run in int64 and cut back: exact modulo 2^64 for ring operations, and for values below 2^63 otherwise."""
    dtype = next(x.dtype for x in inputs if isinstance(x, torch.Tensor) and x.dtype in UNSIGNED)
    wide = [x.to(torch.int64) if isinstance(x, torch.Tensor) and x.dtype == dtype else x for x in inputs]
    result = function(*wide, **attributes)
    return result.to(dtype) if result.dtype == torch.int64 else result


def on_host(value: Any) -> Any:
    """A steering value computed at run time, as Python numbers."""
    return value.tolist() if isinstance(value, torch.Tensor) else value
