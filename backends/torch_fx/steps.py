"""What is to be lowered: operators with the kernels chosen for them, of a graph or of the body of an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import GraphProto, numpy_helper

from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op
from eopt.ir.types import DType, Value

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Choice:
    """A kernel, and why this one.

    Attributes:
        kernel: its name in `KERNELS`.
        reason: one line for the user; empty where there was nothing to choose.
    """

    kernel: str
    reason: str = ""


@dataclass(frozen=True)
class Step:
    """What runs in the place of an operator.

    Attributes:
        op: the operator; its outputs are computed.
        choice: the kernel.
        inputs: value names, None for one left out.
        attributes: as the kernel wants them.
        constants: values that exist for this step only.
        sparse: those of them to be stored as 2:4 sparse.
    """

    op: Op
    choice: Choice
    inputs: tuple[str | None, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[str, Array] = field(default_factory=dict)
    sparse: frozenset[str] = frozenset()

    @property
    def reads(self) -> frozenset[str]:
        """Values that must exist before, those captured by bodies included."""
        captured = self.op.reads if self.op.attrs.graphs else ()
        return frozenset(name for name in (*self.inputs, *captured) if name and name not in self.constants)


@dataclass(frozen=True)
class Block:
    """A graph with everything its lowering asks for.

    Attributes:
        inputs, outputs: value names.
        steps: in topological order.
        constant: the array behind a name, or None.
        dtype: the element type of a value, or None.
        path: where an operator is, for messages and node metadata.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constant: Callable[[str], Array | None]
    dtype: Callable[[str], DType | None]
    path: Callable[[Op], str]


def plain(op: Op, reason: str = "") -> Step:
    """The kernel registered for an operator."""
    name = f"{op.domain}.{op.op}" if op.domain else op.op
    return Step(op, Choice(name, reason), op.inputs, op.attrs)


def of_model(model: Model, steps: Iterable[Step]) -> Block:
    """The main graph, without what no output needs."""
    outputs = tuple(value.id for value in model.outputs)
    feeds = tuple(value.id for value in model.feeds)
    dtype, path = lambda name: model.value(name).dtype, lambda op: model.path(op.uid)
    return Block(feeds, outputs, needed(tuple(steps), outputs), model.constant, dtype, path)


def of_body(graph: GraphProto, captured: tuple[str, ...], outer: Block, path: str) -> Block:
    """The body of a control operator; it also takes what it captures as inputs."""
    ops = [_op(node) for node in graph.node]
    local = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    local |= {op.output: _literal(op) for op in ops if op.op == "Constant" and not op.domain}
    made = {value.id for op in ops for value in op.outputs} | {value.name for value in graph.input}
    types = {value.name: DType.from_onnx(value.type.tensor_type.elem_type) for value in graph.input}

    def constant(name: str) -> Array | None:
        return local[name] if name in local else None if name in made else outer.constant(name)

    def dtype(name: str) -> DType | None:
        return types[name] if name in types else None if name in made else outer.dtype(name)

    inputs = tuple(value.name for value in graph.input)
    steps = tuple(plain(op) for op in ops if op.op != "Constant" or op.domain)
    outputs = tuple(value.name for value in graph.output)
    return Block((*inputs, *captured), outputs, steps, constant, dtype, lambda op: path)


def _literal(op: Op) -> Array:
    value = next(iter(op.attrs.values()))
    probe = value[0] if isinstance(value, tuple) and value else value
    dtype = np.float32 if isinstance(probe, float) else np.int64
    return value if isinstance(value, np.ndarray) else np.asarray(value, dtype=dtype)


def _op(node: Any) -> Op:
    domain = "" if node.domain == "ai.onnx" else node.domain
    inputs = tuple(name or None for name in node.input)
    return Op(node.op_type, inputs, tuple(map(Value, node.output)), Attrs(node.attribute), domain, 0, node.name)


def needed(steps: tuple[Step, ...], outputs: Iterable[str]) -> tuple[Step, ...]:
    """Without the steps that a chosen kernel has made superfluous."""
    wanted, kept = set(outputs), []
    for step in reversed(steps):
        if any(value.id in wanted for value in step.op.outputs):
            kept.append(step)
            wanted |= step.reads
    return tuple(reversed(kept))
