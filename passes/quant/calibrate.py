"""Activation ranges from calibration samples, by tapping the values while the unmodified model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from eopt.backends.data import Dataset
from eopt.ir.model import Model
from eopt.passes.base import Context
from eopt.passes.quant.observers import Observer

BATCH = 8  # bounds the memory of all tapped values together: a ResNet-50 at 224 x 224 taps about 0.4 GB

Range = tuple[float, float]


def ranges(
    model: Model, tensors: Iterable[str], data: Dataset, context: Context, make: Callable[[], Observer]
) -> dict[str, Range | None]:
    """Range of each tensor over the samples; None for one that never held a value."""
    observers = {name: make() for name in tensors}
    if not observers:
        return {}
    fed = {value.id for value in model.feeds}
    taps = [name for name in observers if name not in fed]
    total = len(list(data.batches(model.feeds, BATCH)))
    results = context.runner.run(model, data.batches(model.feeds, BATCH), taps)
    for number, (feed, result) in enumerate(zip(data.batches(model.feeds, BATCH), results, strict=True)):
        for name, observer in observers.items():
            observer.update(feed[name] if name in fed else result[name])
        context.progress("calibrate", number + 1, total)
    return {name: observer.range() for name, observer in observers.items()}
