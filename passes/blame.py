"""Find the first region whose result a rewrite has spoilt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from eopt.backends.base import Feed
from eopt.ir.errors import EoptError
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Context
from eopt.passes.contract import sqnr_db

TAP_BATCHES = 1


def first_broken(original: Model, rewritten: Model, context: Context, batches: Sequence[Feed]) -> str:
    """Module path where error enters: the steepest fall of SQNR along the values both models compute.

    One run of each model with taps serves as the bisection: all boundaries are read at once instead of halving.
    """
    taps = _shared_values(original, rewritten)
    few = list(islice(batches, TAP_BATCHES))
    try:
        reference = list(context.runner.run(original, few, taps))
        actual = list(context.runner.run(rewritten, few, taps))
    except EoptError:
        return "unknown: the taps could not be run"
    quality = {name: sqnr_db(reference, actual, name) for name in taps}
    fall, spoilt = 0.0, ""
    for name in taps:
        op = original.producer(name)
        drop = _before(original, op, quality) - quality[name] if op else 0.0
        if drop > fall:
            fall, spoilt = drop, name
    producer = original.producer(spoilt) if spoilt else None
    return "" if producer is None else f"{original.path(producer.uid)}/{producer.name or producer.op}".lstrip("/")


def _shared_values(original: Model, rewritten: Model) -> list[str]:
    return [
        value.id
        for op in original.leaves()
        for value in op.outputs
        if value.dtype is not None and value.dtype.is_float and rewritten.producer(value.id) is not None
    ]


def _before(original: Model, op: Op, quality: dict[str, float]) -> float:
    """Quality of the worst tapped value the operator depends on; the search passes through untapped ones."""
    worst, pending, seen = 200.0, list(op.reads), set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in quality:
            worst = min(worst, quality[name] if math.isfinite(quality[name]) else worst)
            continue
        producer = original.producer(name)
        pending.extend(producer.reads if producer else ())
    return worst
