"""Sequences, optionals and maps: containers hold references, so only what leaves one as a new tensor moves data.

Their values have no tensor type, so `view` of an operator that touches one is None and its shape Unknown; the
specifications tell passes and executors which of them cost nothing.
"""

from __future__ import annotations

from eopt.ir.ops import OpView, Trait, Unit, Work, declare
from eopt.ir.opset.shared import moved
from eopt.ir.types import DType


def _reference(view: OpView) -> Work:
    """No data moves: a reference is put in, taken out or counted."""
    dtype = view.outputs[0].dtype if view.outputs else DType.INT64
    return Work(0.0, 0.0, 0.0, Unit.NONE, dtype)


def _copied(view: OpView) -> Work:
    """Reads and writes everything once."""
    return moved(view)


_VIEW = (Trait.VIEW,)
_SEQUENCES = "SequenceEmpty SequenceConstruct SequenceInsert SequenceErase SequenceAt SequenceLength"
declare(_SEQUENCES.split(), _reference, traits=_VIEW)
declare(["Optional", "OptionalHasElement", "OptionalGetElement"], _reference, traits=_VIEW)
declare(["ConcatFromSequence", "SplitToSequence"], _copied, traits=(Trait.LAYOUT,))
