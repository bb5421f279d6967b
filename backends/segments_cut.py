"""Cut a model, in the order it runs in, into consecutive models with a bounded amount of weights each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from eopt.ir.analysis import constants, with_own
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.ops import Trait, spec
from eopt.ir.types import Value
from eopt.ir.weights import WeightStore

Needs = Mapping[int, frozenset[str | int]]
"""By uid of an operator, what it reads, by name, and itself, with that of operators computed along with it."""


@dataclass(frozen=True)
class Segment:
    """Consecutive operators as a model of their own.

    Attributes:
        model: its inputs are what it reads of the values before it, its outputs what somebody behind it needs of its.
        kept: all values that somebody behind it needs, and results of the whole model.
    """

    model: Model
    kept: frozenset[str]


def segments(model: Model, max_bytes: int) -> tuple[Segment, ...]:
    """A model in segments, in the order to run them.

    What depends on weights only is computed in every segment that reads it: between segments it would be held once for
    each batch, and engines fold it and want it constant. So are dequantised values: the integers are smaller, and an
    engine that finds a MatMul with one dequantised operand of two computes something else than with both. No cut goes
    through a value that cannot be handed over.

    Args:
        model: without operators nobody needs (`Model.swept`).
        max_bytes: weights of a segment; only what cannot be cut has more.
    """
    own = constants(model) | {op.uid for op in model.leaves() if _dequantises(op)}
    steps = [op for op in model.leaves() if op.uid not in own or any(model.is_output(v.id) for v in op.outputs)]
    sizes, needs = _footprint(model, own)
    found: list[Segment] = []
    kept = frozenset(value.id for value in model.outputs)
    for members in reversed(_packed(_indivisible(steps, needs), sizes, needs, max_bytes)):
        segment = _segment(model, with_own(model, members, own), kept)
        kept = kept.difference(v.id for v in segment.model.outputs).union(v.id for v in segment.model.inputs)
        if segment.model.outputs:
            found.append(segment)
    return tuple(reversed(found))


def _dequantises(op: Op) -> bool:
    found = spec(op.op, op.domain)
    return found is not None and Trait.DEQUANTIZE in found.traits


def _footprint(model: Model, own: Set[int]) -> tuple[dict[str | int, int], Needs]:
    """Bytes of the weights, by name, and of attributes, by uid, and what each operator needs."""
    sizes: dict[str | int, int] = {name: model.weights.nbytes(name) for name in model.weights}
    needs: dict[int, frozenset[str | int]] = {}
    behind: dict[str, frozenset[str | int]] = {}
    for op in model.leaves():
        sizes[op.uid] = sum(proto.ByteSize() for proto in op.attrs.protos)
        needs[op.uid] = frozenset([op.uid]).union(*(behind.get(name, (name,)) for name in op.reads))
        if op.uid in own:
            behind.update((value.id, needs[op.uid]) for value in op.outputs)
    return sizes, needs


def _indivisible(steps: Sequence[Op], needs: Needs) -> list[list[Op]]:
    """Runs of operators between which all values can be handed over."""
    last = {item: place for place, op in enumerate(steps) for item in needs[op.uid]}
    runs: list[list[Op]] = []
    reach = -1  # the last reader, up to here, of a value that cannot be handed over
    for place, op in enumerate(steps):
        if reach < place:
            runs.append([])
        runs[-1].append(op)
        reach = max([reach, *(last.get(value.id, place) for value in op.outputs if not _can_cross(value))])
    return runs


def _can_cross(value: Value) -> bool:
    """An input needs a type, and engines take arrays of NumPy's own types only; other tensors and sequences stay."""
    return value.dtype is not None and value.dtype.numpy.isbuiltin == 1


def _packed(
    runs: Iterable[Sequence[Op]], sizes: Mapping[str | int, int], needs: Needs, max_bytes: int
) -> list[list[Op]]:
    """Runs joined as long as they need at most `max_bytes` together."""
    packed: list[list[Op]] = []
    held: set[str | int] = set()
    size = 0
    for run in runs:
        needed = set[str | int]().union(*(needs[op.uid] for op in run))
        more = sum(sizes.get(item, 0) for item in needed - held)
        if not packed or size + more > max_bytes:
            packed.append([])
            held, size, more = set(), 0, sum(sizes.get(item, 0) for item in needed)
        packed[-1] += run
        held |= needed
        size += more
    return packed


def _segment(model: Model, ops: Sequence[Op], kept: frozenset[str]) -> Segment:
    """These operators as a model of their own."""
    made = dict.fromkeys(value.id for op in ops for value in op.outputs)
    read = dict.fromkeys(name for op in ops for name in op.reads if name not in made)
    fed, returned = ({value.id: value for value in ports} for ports in (model.inputs, model.outputs))
    own = replace(
        model,
        root=replace(model.root, children=ops),
        inputs=tuple(fed.get(name) or _typed(model, name) for name in read if name in fed or model.producer(name)),
        outputs=tuple(returned.get(name) or _typed(model, name) for name in made if name in kept),
        weights=WeightStore({name: model.weights[name] for name in read if name in model.weights}),
    )
    return Segment(own, kept)


def _typed(model: Model, name: str) -> Value:
    """A value from within by type and rank alone: of a wrong extent declared inside a graph engines warn, but one
    declared for an input they hold against what is fed."""
    value = model.value(name)
    shape = None if value.shape is None else tuple(f"{name}.{axis}" for axis in range(len(value.shape)))
    return Value(name, value.dtype, shape)
