"""Activation ranges from calibration samples, by tapping the values while the unmodified model runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from eopt.backends.base import Array
from eopt.backends.data import Dataset, Part
from eopt.backends.data_check import fixed_batch
from eopt.ir.dims import late
from eopt.ir.model import Model
from eopt.ir.types import DType, Shape, bind, concrete
from eopt.passes.base import Context
from eopt.passes.quant.observers import Observer

BATCHES = (8, 4, 2, 1)  # more samples at once gain no speed worth their memory
BUDGET_BYTES = 1 << 29  # of all values tapped in a run of one batch


@dataclass(frozen=True)
class Calibration:
    """What calibration learned.

    Attributes:
        ranges: low and high end by tensor.
        unusable: reasons, by tensor that has no finite range.
    """

    ranges: Mapping[str, tuple[float, float]]
    unusable: Mapping[str, str]


def observe(
    model: Model, tensors: Iterable[str], data: Dataset, context: Context, make: Callable[[], Observer]
) -> Calibration:
    """Observe tensors while the model runs on all samples; `make` gives a fresh observer.

    Raises:
        InputError: the model does not run on the samples.
    """
    names = list(dict.fromkeys(tensors))
    ranges: dict[str, tuple[float, float]] = {}
    unusable = {name: f"{name!r} holds {dtype}, no real numbers" for name in names if (dtype := _discrete(model, name))}
    observers = {name: make() for name in names if name not in unusable}
    streamed(model, observers, data, context, lambda name, array: observers[name].update(array))
    for name, observer in observers.items():
        found = observer.range()
        if found is None:
            unusable[name] = f"calibration saw no value of {name!r}"
        elif not all(map(math.isfinite, found)):
            unusable[name] = f"calibration saw NaN or infinity in {name!r}"
        else:
            ranges[name] = found
    return Calibration(ranges, unusable)


def streamed(
    model: Model, tensors: Iterable[str], data: Dataset, context: Context, take: Callable[[str, Array], None]
) -> None:
    """Run a model over all samples and hand the tensors of each batch to `take`, by name.

    The batch shrinks until what is tapped fits into `BUDGET_BYTES`; where one sample does not fit, the model runs
    several times, with some of the taps each.

    Args:
        tensors: graph inputs, or values that operators compute; what is no tensor in a batch is not taken.

    Raises:
        InputError: the model does not run on the samples.
    """
    names = list(dict.fromkeys(tensors))
    if not names:
        return
    size, runs = _plan(model, names, data)
    total = len(runs) * sum(1 for _ in data.batches(model.feeds, size))
    batches = (seen for taps in runs for seen in _run(model, taps, data, size, context))
    for done, seen in enumerate(batches, start=1):
        for name, array in seen.items():
            take(name, array)
        context.progress("calibrate", done, total)


def _discrete(model: Model, name: str) -> DType | None:
    dtype = model.value(name).dtype
    return None if dtype is None or dtype.is_float else dtype


def _run(
    model: Model, names: Sequence[str], data: Dataset, size: int, context: Context
) -> Iterator[Mapping[str, Array]]:
    """The named tensors of each batch; the model itself only runs for those that it computes."""
    fed = {value.id for value in model.feeds}
    taps = [name for name in names if name not in fed]
    feeds = data.batches(model.feeds, size)
    if not taps:
        yield from ({name: feed[name] for name in names} for feed in feeds)
        return
    results = context.runner.run(model, data.batches(model.feeds, size), taps)
    for feed, result in zip(feeds, results, strict=True):
        found = {**feed, **result}
        yield {name: found[name] for name in names if isinstance(found.get(name), np.ndarray)}


def _plan(model: Model, names: Sequence[str], data: Dataset) -> tuple[int, list[list[str]]]:
    """The size of a batch, and the tensors of each run."""
    fixed = fixed_batch(model.feeds)
    largest = max(data.parts, key=lambda part: sum(prod(array.shape[1:]) for array in part.arrays.values()))
    for size in (fixed,) if fixed else BATCHES:
        needed = _bytes(model, names, largest, size)
        if sum(needed.values()) <= BUDGET_BYTES:
            return size, [list(names)]
    runs: list[list[str]] = []
    room = 0
    for name in names:
        if not runs or needed[name] > room:
            runs.append([])
            room = BUDGET_BYTES
        runs[-1].append(name)
        room -= needed[name]
    return size, runs


def _bytes(model: Model, names: Sequence[str], part: Part, size: int) -> dict[str, int]:
    """Bytes of each tensor in a batch; those of unknown shape count as much as the largest that is known."""
    shapes = {value.id: (size, *part.arrays[value.id].shape[1:]) for value in model.feeds}
    pairs = [pair for value in model.feeds for pair in zip(value.shape or (), shapes[value.id], strict=False)]
    bindings = model.get(late).bound({dim: extent for dim, extent in pairs if isinstance(dim, str)})
    values = {name: model.value(name) for name in names}
    known = {name: _size(value.shape, value.dtype, bindings) for name, value in values.items()}
    largest = max((found for found in known.values() if found is not None), default=BUDGET_BYTES // len(BATCHES))
    return {name: largest if found is None else found for name, found in known.items()}


def _size(shape: Shape | None, dtype: DType | None, bindings: Mapping[str, int]) -> int | None:
    extents = None if shape is None else concrete(bind(shape, bindings))
    return None if extents is None else prod(extents) * (dtype or DType.FLOAT32).bits // 8
