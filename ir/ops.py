"""Operator specifications: work, traffic and axes of every operator, declared once in `ir/opset/<family>.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import import_module
from math import isfinite, prod
from typing import Any

import numpy as np

from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op
from eopt.ir.types import DType, bind, concrete

FAMILIES = (
    "attention", "attention_contrib", "attention_packed", "causal_conv", "control", "conv", "deform", "detection",
    "einsum", "elementwise", "elementwise_contrib", "gather", "gathers_contrib", "generate", "layout",
    "linear_attention", "linear_models", "loss", "matmul", "matmul_contrib", "matmul_packed", "matrices", "moe",
    "nchwc", "norm", "norm_contrib", "pool", "quantize", "quantize_blocks", "recurrent", "records", "reduce",
    "reduce_contrib", "resample", "rotary", "scan", "scatter", "sequences", "signal", "strings", "trees", "views",
)  # fmt: skip
HOST_ELEMENTS = 1024  # shapes, axes, scales: constants a spec may look into


class Unit(StrEnum):
    """The part of a chip that does the work."""

    MATRIX = "matrix"
    VECTOR = "vector"
    MOVE = "move"
    NONE = "none"


class Trait(StrEnum):
    """Properties that passes and executors match on instead of operator names."""

    ELEMENTWISE = "elementwise"
    UNARY = "unary"
    CONTRACTION = "contraction"
    NORMALIZATION = "normalization"
    REDUCTION = "reduction"
    VIEW = "view"
    LAYOUT = "layout"
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"


class Role(StrEnum):
    """What an operator does along an axis class: maps positions one to one, sums over them, or mixes them."""

    MAP = "map"
    CONTRACT = "contract"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An operand with its symbolic dims bound; `const` holds small host values (shapes, axes) only."""

    shape: tuple[int, ...]
    dtype: DType
    const: np.ndarray[Any, Any] | None = None
    weight: bool = False

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> float:
        """Bytes in packed form; sub-byte types count fractions."""
        return self.numel * self.dtype.bits / 8


@dataclass(frozen=True, slots=True)
class OpView:
    """One execution of an operator, as its spec sees it.

    Attributes:
        outputs: those that are named; an optional result left out has no place, so look at ranks where that matters.
        captures: outer values that the operator's subgraphs may read, by name; its own inputs are among them.
        opsets: operator-set version by domain; empty means the newest.
    """

    op: str
    domain: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attrs: Attrs
    captures: Mapping[str, Tensor] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)

    def optional(self, position: int) -> Tensor | None:
        """An input that may be left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def input(self, position: int) -> Tensor:
        """An input that must be there.

        Raises:
            InputError: it is not.
        """
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise InputError(f"{self.op}: input {position} is missing")
        return found

    def axis(self, default: int, rank: int | None = None) -> int:
        """The `axis` attribute as a non-negative number.

        Raises:
            InputError: out of range.
        """
        rank = len(self.input(0).shape) if rank is None else rank
        axis = self.attrs.get("axis", default)
        if not isinstance(axis, int) or not -rank <= axis < max(rank, 1):
            raise InputError(f"{self.op}: axis {axis} is out of range for rank {rank}")
        return axis % rank if rank else 0


@dataclass(frozen=True, slots=True)
class Work:
    """What one execution costs in principle.

    Attributes:
        flops: arithmetic operations; a multiply-add counts 2.
        read_bytes: compulsory reads, each distinct byte once.
        write_bytes: compulsory writes.
        unit: which part of the chip works.
        dtype: type of the arithmetic.
        reread_bytes: bytes moved again beyond the compulsory traffic: second passes over a row, panels of a product,
            weights of every time step.
        held_bytes: what a memory has to hold to serve those again, i.e. the distance in bytes between two uses.
    """

    flops: float
    read_bytes: float
    write_bytes: float
    unit: Unit
    dtype: DType
    reread_bytes: float = 0.0
    held_bytes: float = 0.0


def level_bytes(work: Work, capacities_bytes: Sequence[float]) -> tuple[float, ...]:
    """Bytes that each memory level moves, nearest first; the last one holds everything.

    All traffic passes the nearest level, and compulsory traffic passes all of them. What is used again is served by the
    nearest level that can hold `held_bytes`: under least-recently-used replacement an access hits exactly where its
    reuse distance fits (Mattson et al. 1970, https://doi.org/10.1147/sj.92.0078), and a cyclic sweep over more than
    fits never does. So there is no partial credit, and the outermost level moves the compulsory bytes and whatever is
    used again at a distance that no inner level holds.
    """
    compulsory, moved, held = work.read_bytes + work.write_bytes, [], False
    for capacity in capacities_bytes:
        moved.append(compulsory + (0.0 if held else work.reread_bytes))
        held = held or capacity >= work.held_bytes
    return tuple(moved)


@dataclass(frozen=True, slots=True)
class Tie:
    """One axis class inside an operator. A member is (port, axis, factor): port `x0` or `y0`; `factor` consecutive
    elements of that axis belong to one position of the class (heads, groups), 1 normally."""

    members: tuple[tuple[str, int, int], ...]
    role: Role


@dataclass(frozen=True, slots=True)
class OpSpec:
    """Work, axes and traits of an operator type."""

    work_of: Callable[[OpView], Work]
    axes_of: Callable[[OpView], tuple[Tie, ...]]
    traits: frozenset[Trait]

    def work(self, view: OpView) -> Work:
        """Work of one execution.

        Raises:
            InputError: operands or attributes contradict the operator's definition.
        """
        with _guarded(view):
            work = self.work_of(view)
            amounts = (work.flops, work.read_bytes, work.write_bytes, work.reread_bytes, work.held_bytes)
            if not all(isfinite(amount) and amount >= 0 for amount in amounts):
                raise ValueError("less than nothing, or more than a number holds")
            return work

    def axes(self, view: OpView) -> tuple[Tie, ...]:
        """Axis classes.

        Raises:
            InputError: as `work`.
        """
        with _guarded(view):
            return self.axes_of(view)


@contextmanager
def _guarded(view: OpView) -> Iterator[None]:
    """Hostile operands and attributes end in one clear error."""
    try:
        yield
    except (IndexError, ZeroDivisionError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InputError(f"{view.op}: operands or attributes make no sense ({error})") from None


_SPECS: dict[tuple[str, str], OpSpec] = {}


def no_axes(view: OpView) -> tuple[Tie, ...]:
    """Every axis on its own, and mixed: what is said of operators whose axes nobody may cut."""
    ports = [(f"x{i}", tensor) for i, tensor in enumerate(view.inputs) if tensor]
    ports += [(f"y{i}", tensor) for i, tensor in enumerate(view.outputs)]
    return tuple(Tie(((port, axis, 1),), Role.WHOLE) for port, tensor in ports for axis in range(len(tensor.shape)))


def declare(
    names: Iterable[str],
    work: Callable[[OpView], Work],
    axes: Callable[[OpView], tuple[Tie, ...]] = no_axes,
    traits: Iterable[Trait] = (),
    domain: str = "",
) -> None:
    """Declare operators that share one specification."""
    for name in names:
        _SPECS[domain, name] = OpSpec(work, axes, frozenset(traits))


@cache
def _load_families() -> None:
    for family in FAMILIES:
        import_module(f"eopt.ir.opset.{family}")


def spec(op: str, domain: str = "") -> OpSpec | None:
    """The specification of an operator type, None when nobody has written one."""
    _load_families()
    return _SPECS.get((domain, op))


def known() -> list[tuple[str, str]]:
    """All (domain, operator) pairs with a specification."""
    _load_families()
    return sorted(_SPECS)


def view(model: Model, op: Op, bindings: Mapping[str, int]) -> OpView | None:
    """An operator with its symbolic dims bound; None while a type or shape is unknown."""
    inputs = [_tensor(model, name, bindings) if name else None for name in op.inputs]
    outputs = [_tensor(model, value.id, bindings) for value in op.outputs if value.id]
    # Most operators have no subgraph, and most models have many operators.
    captures = {name: _tensor(model, name, bindings) for name in op.reads} if op.attrs.graphs else {}
    missing = any(name and tensor is None for name, tensor in zip(op.inputs, inputs, strict=True))
    if missing or None in outputs or None in captures.values():
        return None
    known_outputs = tuple(tensor for tensor in outputs if tensor)
    known_captures = {name: tensor for name, tensor in captures.items() if tensor}
    return OpView(op.op, op.domain, tuple(inputs), known_outputs, op.attrs, known_captures, model.opsets)


def _tensor(model: Model, name: str, bindings: Mapping[str, int]) -> Tensor | None:
    value = model.value(name)
    shape = None if value.shape is None else concrete(bind(value.shape, bindings))
    if shape is None or value.dtype is None:
        return None
    weight = name in model.weights
    small = prod(shape) <= HOST_ELEMENTS
    return Tensor(shape, value.dtype, model.constant(name) if small else None, weight)


def traffic(view: OpView) -> tuple[float, float]:
    """Compulsory traffic when every operand is read and every result written once: (read, written) bytes."""
    return sum(tensor.nbytes for tensor in view.inputs if tensor), sum(tensor.nbytes for tensor in view.outputs)
