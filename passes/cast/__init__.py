"""`cast`: compute in float16 or bfloat16 wherever operators and values allow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import ClassVar

from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import DType
from eopt.passes.base import Change, Context, Granularity, Outcome, Pass
from eopt.passes.cast import islands
from eopt.passes.cast.islands import Samples
from eopt.passes.cast.narrow import closed, narrowable, narrowed, together
from eopt.passes.contract import Contract, Sqnr
from eopt.passes.rewrite import where

# Signal to noise that whole networks keep: float16 has 11 bits of mantissa (66 dB a rounding), bfloat16 8 (48 dB);
# some 30 layers of accumulated roundings and ill-conditioned normalisations cost about 25 dB.
_BOUND_DB = {DType.FLOAT16: 40.0, DType.BFLOAT16: 22.0}


class Islands(StrEnum):
    """Who decides what stays in float32: samples, or the schemas of the operators alone."""

    AUTO = "auto"
    NONE = "none"


@dataclass(frozen=True)
class Cast(Pass):
    """Compute in float16 or bfloat16; inputs, outputs and operators that would lose too much stay float32.

    Attributes:
        to: the narrow type.
        keep: operator types that stay float32.
        exclude: shell patterns on module paths and operator names that stay float32.
        islands: auto leaves what float16 cannot hold in float32, by the samples where there are some, and then the
            operators with the largest errors until the contract holds on the samples; none narrows all that may be.
    """

    name: ClassVar[str] = "cast"
    after: ClassVar[tuple[str, ...]] = ("simplify", "fuse")
    conflicts: ClassVar[tuple[str, ...]] = ("quant",)
    granularity: ClassVar[Granularity] = Granularity.PASS

    to: DType = DType.FLOAT16
    keep: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    islands: Islands = Islands.AUTO

    @property
    def contract(self) -> Contract:
        """See `_BOUND_DB`."""
        return Sqnr(_BOUND_DB.get(self.to, 0.0))

    def run(self, model: Model, context: Context) -> Outcome:
        """See `Pass.run`."""
        if self.to not in _BOUND_DB:
            raise UsageError(f"cast: to={self.to}; choose from {', '.join(_BOUND_DB)}")
        able = [op for op in model.leaves() if narrowable(model, op, self.to) and not self._told(model, op)]
        if not able:
            return Outcome(model, notes=(_nothing(model),))
        samples = Samples.of(model, context) if self.islands is Islands.AUTO else None
        kept = self._unfit(model, able, samples)
        narrow, rewritten, notes = self._settled(model, able, kept, samples)
        notes += tuple(_listed(model, able, kept))
        if not narrow:
            return Outcome(model, notes=notes)
        change = Change(f"to {self.to}", f"{len(narrow)} of {len(model.leaves())} operators")
        if context.gate is None:
            return Outcome(rewritten, (change,), notes=notes)
        decision = context.gate.decide(model, rewritten)
        change = replace(change, saved_j=decision.saved_j, reason=decision.reason)
        if decision.reason:
            return Outcome(model, refused=(change,), notes=notes)
        return Outcome(rewritten, (change,), notes=notes)

    def _told(self, model: Model, op: Op) -> bool:
        names = (model.path(op.uid), op.name, where(model, op))
        return op.op in self.keep or any(fnmatchcase(name, pattern) for name in names for pattern in self.exclude)

    def _unfit(self, model: Model, able: Sequence[Op], samples: Samples | None) -> dict[int, str]:
        """Operators whose values float16 cannot hold, by uid; bfloat16 has the range of float32."""
        if self.islands is Islands.NONE or self.to is not DType.FLOAT16:
            return {}
        measured = islands.ranges(model, able, samples) if samples else {}
        return measured | islands.constants(model, able)

    def _settled(
        self, model: Model, able: Sequence[Op], kept: dict[int, str], samples: Samples | None
    ) -> tuple[list[Op], Model, tuple[str, ...]]:
        """The operators that compute narrow, the model with them, and notes; adds to `kept` what the contract asks.

        The worst operators go back first, twice as many each time: that takes log2(operators) runs, at the price of up
        to twice as many in float32 as had to be. With each go those that compute its operands.
        """
        order: list[Op] = []
        count = 1
        while True:
            narrow = closed(model, {op.uid for op in able} - kept.keys())
            rewritten, clipped = narrowed(model, narrow, self.to)
            notes = (f"{clipped} weights beyond the range of {self.to} were clipped",) if clipped else ()
            if samples is None or not narrow or islands.holds(model, narrow, samples, self.to, _BOUND_DB[self.to]):
                return narrow, rewritten, notes
            order = order or islands.worst_first(model, narrow, samples, self.to)
            kept |= {uid: islands.ERROR for op in order[:count] for uid in together(model, op) - kept.keys()}
            count *= 2


def _nothing(model: Model) -> str:
    """Why there is nothing to do."""
    there = {value.dtype for op in model.leaves() for value in op.outputs}
    narrow = [dtype for dtype in _BOUND_DB if dtype in there]
    if not narrow:
        return "nothing computes in float32"
    return f"the model computes in {' and '.join(narrow)} already; cast starts from a float32 model"


def _listed(model: Model, ops: Sequence[Op], kept: dict[int, str]) -> Iterator[str]:
    """One note for each reason, with the first few operators it holds for."""
    for reason in dict.fromkeys(kept.values()):
        places = [where(model, op) for op in ops if kept.get(op.uid) == reason]
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        yield f"{len(places)} of {len(ops)} operators in float32 for {reason}: {', '.join(places[:3])}{more}"
