"""What is kept from onnx's C++ shape inference, which hangs, explodes or runs out of memory on hostile models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from eopt.ir.errors import InputError
from eopt.ir.messages import Block, attributes, below, blocks

MAX_CALLS_DEEP = 64
MAX_EXPANDED_NODES = 1 << 20  # onnx infers about half a million a second
CALL_NODES = 16  # what entering a function takes, in nodes
INFERENCE_BYTES = 1 << 28  # a hundred thousand nodes take a fifth of it
_TERM = r"\s*(?:[A-Za-z]\s*)*(?:\.\.\.\s*(?:[A-Za-z]\s*)*)?"
_EQUATION = re.compile(rf"{_TERM}(?:,{_TERM})*(?:->{_TERM})?".encode())
_MAX_EQUATION = 4096

_CONSTANTS = {
    "value": AttributeProto.TENSOR,
    "value_float": AttributeProto.FLOAT,
    "value_floats": AttributeProto.FLOATS,
    "value_int": AttributeProto.INT,
    "value_ints": AttributeProto.INTS,
}

_Key = tuple[str, str, str]
T = TypeVar("T")
_STATM = Path("/proc/self/statm")


def check(proto: ModelProto) -> None:
    """Refuse what shape inference does not survive.

    Raises:
        InputError: functions that call themselves or expand without end, an equation that Einsum would hang on, a Split
            with other outputs than it says, or a Constant of another type.
    """
    if proto.functions:
        _check_calls(proto)
    for block in blocks(proto):
        _check_equations(block, proto)
        _check_splits(block)
        _check_constants(block)


def _check_calls(proto: ModelProto) -> None:
    """Count the nodes that remain when every call is replaced by its body, callees first."""
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    sizes: dict[_Key, int] = {}
    for key in functions:
        _measure(key, functions, sizes)
    _measured(proto.graph, functions, sizes, "the main graph")


def _measure(start: _Key, functions: dict[_Key, FunctionProto], sizes: dict[_Key, int]) -> None:
    """Depth-first over calls, with a stack of its own; what is on the stack must not be called again."""
    stack = [start]
    while stack:
        key = stack[-1]
        if key in sizes:
            stack.pop()
            continue
        waiting = [called for called in dict.fromkeys(_calls(functions[key], functions)) if called not in sizes]
        if any(called in stack for called in waiting):
            raise InputError(f"function {key[1]!r} calls itself; ONNX functions must not be recursive")
        if len(stack) > MAX_CALLS_DEEP:
            raise InputError(f"function {key[1]!r}: calls nested deeper than {MAX_CALLS_DEEP}")
        if waiting:
            stack.append(waiting[0])
        else:
            sizes[key] = _measured(functions[key], functions, sizes, f"function {key[1]!r}")


def _measured(block: Block, functions: dict[_Key, FunctionProto], sizes: dict[_Key, int], where: str) -> int:
    own = sum(len(inner.node) for inner in below([block]))
    size = own + sum(CALL_NODES + sizes[called] for called in _calls(block, functions))
    if size > MAX_EXPANDED_NODES:
        raise InputError(f"{where}: its function calls expand to more than {MAX_EXPANDED_NODES} nodes")
    return size


def _calls(block: Block, functions: dict[_Key, FunctionProto]) -> Iterator[_Key]:
    for inner in below([block]):
        for node in inner.node:
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                yield key


def _check_equations(block: Block, proto: ModelProto) -> None:
    for node in block.node:
        if node.op_type != "Einsum":
            continue
        for attribute in _equations(node, proto):
            if len(attribute.s) > _MAX_EQUATION or not _EQUATION.fullmatch(attribute.s):
                raise InputError(f"Einsum {node.name!r}: {attribute.s[:64]!r} is no equation")


def _check_splits(block: Block) -> None:
    """Inference aborts the whole process where a Split has more outputs than it says."""
    for node in block.node:
        told = [attribute for attribute in node.attribute if attribute.name == "num_outputs"]
        if node.op_type == "Split" and any(a.ref_attr_name or a.i != len(node.output) for a in told):
            raise InputError(f"Split {node.name!r}: num_outputs must be the number of its outputs, {len(node.output)}")


def _check_constants(block: Block) -> None:
    for node in block.node:
        for attribute in node.attribute if node.op_type == "Constant" and not node.domain else ():
            if attribute.type != _CONSTANTS.get(attribute.name, attribute.type):
                raise InputError(f"Constant {node.name!r}: {attribute.name} holds something of another type")


def _equations(node: NodeProto, proto: ModelProto) -> list[AttributeProto]:
    """The equation of an Einsum; inside a function it may come from any attribute with that name of any call."""
    own = [attribute for attribute in node.attribute if attribute.name == "equation"]
    referred = {attribute.ref_attr_name for attribute in own} - {""}
    if not referred:
        return own
    every = [attribute for block in blocks(proto) for attribute in attributes(block)]
    while more := {a.ref_attr_name for a in every if a.name in referred} - referred - {""}:
        referred |= more
    return [attribute for attribute in every if attribute.name in referred and not attribute.ref_attr_name]


def within_memory(function: Callable[[], T], size: int = INFERENCE_BYTES) -> T:
    """Call a function that may take this much more address space and no more; on other systems, without a bound.

    It runs in a thread, whose stack is there in full before the bound is set: a stack that cannot grow any more is a
    segmentation fault, not a MemoryError.

    Raises:
        MemoryError: it wants more; or whatever the function raises.
    """
    if not _STATM.exists():
        return function()
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(_bounded, function, size).result()


def _bounded(function: Callable[[], T], size: int) -> T:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(_STATM.read_text().split()[0]) * resource.getpagesize() + size
    allowed = [limit for limit in (wanted, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(allowed), hard))
    try:
        return function()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
