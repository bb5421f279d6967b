"""What families share: work from the operands' traffic, what is used again and how far apart, and plain axis maps."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import ceil, log2

from eopt.ir.ops import OpView, Role, Tensor, Tie, Unit, Work, traffic
from eopt.ir.types import DType

TILE = 128  # rows of a panel that a kernel holds close to its arithmetic, as CUTLASS and MLAS tile

# Operations of functions without a machine instruction, as elementwise.py counts them.
EXP, LOG, SIGMOID, TANH = 10, 12, 12, 20
SOFTMAX = 14  # maximum, subtraction, exp, sum, division

Again = tuple[float, float]
"""(bytes moved again, bytes that must be held to serve them)."""
NEVER: Again = (0.0, 0.0)


def vector(view: OpView, flops: float, dtype: DType | None = None, again: Again = NEVER) -> Work:
    """Arithmetic on vector units over operands that are read once and results that are written once."""
    read, written = traffic(view)
    return Work(float(flops), read, written, Unit.VECTOR, dtype or view.input(0).dtype, *again)


def matrix(view: OpView, flops: float, dtype: DType | None = None, again: Again = NEVER) -> Work:
    """As `vector`, on matrix units."""
    read, written = traffic(view)
    return Work(float(flops), read, written, Unit.MATRIX, dtype or view.input(0).dtype, *again)


def moved(view: OpView, read_bytes: float | None = None) -> Work:
    """No arithmetic: everything is read, or as much as is said, and the results are written."""
    read, written = traffic(view)
    return Work(0.0, read if read_bytes is None else read_bytes, written, Unit.MOVE, view.outputs[0].dtype)


def panels(m: int, n: int, left_bytes: float, right_bytes: float, products: int = 1) -> Again:
    """A product of (m, k) and (k, n): the larger operand streams by in panels, the smaller is swept once for each."""
    rows, swept, streamed = (m, right_bytes, left_bytes) if left_bytes >= right_bytes else (n, left_bytes, right_bytes)
    count = ceil(rows / TILE)
    return max(0, count - 1) * swept * products, swept + streamed / max(1, count)


def passes(tensor: Tensor, count: float, row_elements: float) -> Again:
    """`count` further passes over rows of so many elements, each row finished before the next begins."""
    return count * tensor.nbytes, row_elements * tensor.dtype.bits / 8


def fft_flops(points: int, real: bool) -> float:
    """Split-radix convention of FFTW: 5 n log2 n for complex data, half of it for real (http://www.fftw.org/speed)."""
    return (2.5 if real else 5.0) * points * log2(points) if points > 1 else 0.0


def constant(tensor: Tensor | None) -> tuple[float, ...] | None:
    """The elements of a small host value, None when it is computed at run time."""
    if tensor is None or tensor.const is None:
        return None
    return tuple(tensor.const.reshape(-1).tolist())


def before_opset(view: OpView, version: int) -> bool:
    """True when the model says that it is older; a view that says nothing is new."""
    return view.opsets.get(view.domain, version) < version


def wholes(view: OpView, ties: Iterable[Tie]) -> tuple[Tie, ...]:
    """These classes, and every axis that is in none of them on its own: mixed."""
    named = tuple(tie for tie in ties if tie.members)
    taken = {(port, axis) for tie in named for port, axis, _ in tie.members}
    ports = [(f"x{number}", tensor) for number, tensor in enumerate(view.inputs) if tensor]
    ports += [(f"y{number}", tensor) for number, tensor in enumerate(view.outputs)]
    places = [(port, axis) for port, tensor in ports for axis in range(len(tensor.shape))]
    return (*named, *(Tie(((*place, 1),), Role.WHOLE) for place in places if place not in taken))


def mapped(*members: tuple[str, int, int]) -> Tie:
    """A class whose positions go through one to one."""
    return Tie(members, Role.MAP)


def contracted(*members: tuple[str, int, int]) -> Tie:
    """A class that is summed over."""
    return Tie(members, Role.CONTRACT)


def kept(view: OpView, mixed: Collection[int] = (), ports: Collection[str] = ("x0", "y0")) -> tuple[Tie, ...]:
    """Operators that keep the shape of their first input: axes map one to one except those that are mixed."""
    rank = len(view.input(0).shape)
    away = {axis % rank for axis in mixed}
    own = [axis for axis in range(rank) if axis not in away]
    return wholes(view, (mapped(*((port, axis, 1) for port in ports)) for axis in own))


def aligned(view: OpView, mixed: Collection[int] = ()) -> tuple[Tie, ...]:
    """All operands aligned from the right with the first result; an extent that is broadcast is tied to nothing."""
    shape = view.outputs[0].shape
    ports = [(f"x{number}", tensor) for number, tensor in enumerate(view.inputs) if tensor]
    ports += [(f"y{number}", tensor) for number, tensor in enumerate(view.outputs)]
    ties = []
    for axis, extent in enumerate(shape):
        places = [(port, len(tensor.shape) - len(shape) + axis, tensor.shape) for port, tensor in ports]
        members = tuple((port, own, 1) for port, own, dims in places if own >= 0 and dims[own] == extent)
        ties.append(Tie(members, Role.WHOLE if axis in mixed else Role.MAP))
    return wholes(view, ties)
