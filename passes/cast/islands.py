"""Which operators stay in float32, by what samples show of their values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from eopt.backends.base import Array, Feed
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import DType
from eopt.passes.base import Context
from eopt.passes.cast import emulate, narrow
from eopt.passes.contract import Sqnr, sqnr_db

SAMPLES = 32
BATCH = 8  # bounds the memory of all tapped values together

RANGE = "values beyond half the range"
SMALL = "values that underflow"
SQUARES = "squares beyond half the range"
CONSTANTS = "constants beyond half the range"
ERROR = "largest errors while the whole missed its contract"

_HALF_RANGE = narrow.LARGEST[DType.FLOAT16] / 2  # what comes later may reach twice what a few samples reach
# Constants of masks, and scores they are added to: they mean minus infinity, and any softmax takes -65504 or -inf for
# it. Should such a figure be a signal after all, the check of the whole model notices.
_MASK = -1e9
_LOST = 1e-4  # power of the rounding error beside that of the values: a single value in the contract's 40 dB
_MARGIN_DB = 1.0  # between the samples seen here and others
# Their squares or sums of squares are computed in the type of their input by some executors (TensorRT, NumPy), although
# `stash_type` of the newer ones asks for float32.
_SQUARING = frozenset(
    "LayerNormalization RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization GroupNormalization "
    "SkipSimplifiedLayerNormalization InstanceNormalization MeanVarianceNormalization LpNormalization "
    "ReduceSumSquare ReduceL2".split()
)


@dataclass
class Seen:
    """What was seen of a value or stored in a constant: largest magnitude, power, and power float16 rounds away."""

    largest: float = 0.0
    power: float = 0.0
    lost: float = 0.0

    def update(self, array: Array) -> None:
        """Take in a batch; infinities and masks are no values."""
        values = array[np.isfinite(array) & (array > _MASK)].astype(np.float64)
        within = np.clip(values, -narrow.LARGEST[DType.FLOAT16], narrow.LARGEST[DType.FLOAT16])
        self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))
        self.power += float(np.square(within).sum())
        self.lost += float(np.square(within - within.astype(np.float16)).sum())

    @property
    def overflows(self) -> bool:
        return self.largest > _HALF_RANGE

    @property
    def underflows(self) -> bool:
        return self.lost > _LOST * self.power


@dataclass(frozen=True)
class Samples:
    """Batches to run, and the float32 results on them."""

    context: Context
    feeds: Sequence[Feed]
    reference: Sequence[dict[str, Array]] = field(default=())

    @classmethod
    def of(cls, model: Model, context: Context) -> Samples | None:
        """The first samples; None where there are none."""
        if context.data is None:
            return None
        batches = context.data.take(slice(0, SAMPLES)).batches(model.feeds, BATCH)
        feeds = list(islice(batches, SAMPLES))
        return cls(context, feeds, list(context.runner.run(model, feeds))) if feeds else None

    def run(self, model: Model, taps: Sequence[str] = ()) -> Iterator[dict[str, Array]]:
        """Results of a batch at a time."""
        for number, result in enumerate(self.context.runner.run(model, self.feeds, taps)):
            self.context.progress("cast", number + 1, len(self.feeds))
            yield result


def constants(model: Model, ops: Sequence[Op]) -> dict[int, str]:
    """Operators that read constants float16 cannot hold, by uid, with the reason."""
    known: dict[str, bool] = {}
    for name in {name: None for op in ops for name in op.inputs if name}:
        array = model.constant(name)
        seen = Seen()
        if array is not None and array.dtype == np.float32:
            seen.update(array)
        known[name] = seen.overflows
    return {op.uid: CONSTANTS for op in ops if any(known[name] for name in op.inputs if name)}


def ranges(model: Model, ops: Sequence[Op], samples: Samples) -> dict[int, str]:
    """Operators that read or write values float16 cannot hold, or square such values, by uid, with the reason."""
    names = dict.fromkeys(name for op in ops for name in _touched(op))
    wide = [name for name in names if model.value(name).dtype is DType.FLOAT32 and model.constant(name) is None]
    seen = {name: Seen() for name in wide}
    fed = {value.id for value in model.feeds}
    taps = [name for name in wide if name not in fed]
    for feed, result in zip(samples.feeds, samples.run(model, taps), strict=True):
        for name, item in seen.items():
            item.update(feed[name] if name in fed else result[name])
    found = {op.uid: _unfit(op, seen) for op in ops}
    return {uid: reason for uid, reason in found.items() if reason}


def _touched(op: Op) -> list[str]:
    return [name for name in (*op.inputs, *(value.id for value in op.outputs)) if name]


def _unfit(op: Op, seen: Mapping[str, Seen]) -> str:
    touched = [seen[name] for name in _touched(op) if name in seen]
    if any(item.overflows for item in touched):
        return RANGE
    if any(item.underflows for item in touched):
        return SMALL
    data = seen.get(op.inputs[0] or "")
    squares = op.op in _SQUARING and data is not None and data.largest**2 > _HALF_RANGE
    return SQUARES if squares else ""


def holds(model: Model, ops: Sequence[Op], samples: Samples, to: DType, db: float) -> bool:
    """Whether the model keeps this SQNR on the samples, in dB, with these operators in the narrow type."""
    rounded = list(samples.run(emulate.emulated(model, ops, to)))
    return Sqnr(db + _MARGIN_DB).check(samples.reference, rounded).holds


def worst_first(model: Model, ops: Sequence[Op], samples: Samples, to: DType) -> list[Op]:
    """The operators by the SQNR of their narrow version alone, fed with float32 values, the lowest first."""
    shadows, pairs = emulate.shadowed(model, ops, to)
    taps = list(dict.fromkeys(name for both in pairs.values() for pair in both for name in pair))
    quality: dict[int, list[float]] = {op.uid: [] for op in ops}
    for result in samples.run(shadows, taps):
        for uid, both in pairs.items():
            quality[uid] += [sqnr_db([{"": result[wide]}], [{"": result[twin]}], "") for wide, twin in both]
    return sorted(ops, key=lambda op: min(quality[op.uid], default=math.inf))
