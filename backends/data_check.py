"""What samples have to be for a model; the same for all of their sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.base import Array
from eopt.ir.errors import InputError
from eopt.ir.types import Value

LABELS = "labels"
MAX_BYTES = 8 << 30


def expected(feeds: Sequence[Value]) -> str:
    """What calibration data has to look like, with a ready-made line."""
    described = ", ".join(f"{value.id}: {value.dtype}{list(value.shape or ())}".replace("'", "") for value in feeds)
    example = ", ".join(f"{value.id}=..." if value.id.isidentifier() else f"**{{{value.id!r}: ...}}" for value in feeds)
    return f"the model expects {described}; write it with np.savez('data.npz', {example})"


def fixed_batch(feeds: Sequence[Value]) -> int | None:
    """How many samples the model takes at once; None for any number."""
    return min((value.shape[0] for value in feeds if value.shape and isinstance(value.shape[0], int)), default=None)


def checked(where: str | Path, arrays: Mapping[str, Array], feeds: Sequence[Value]) -> dict[str, Array]:
    """The arrays, which belong to the inputs of a model.

    Args:
        where: file or place in it that an error names.

    Raises:
        InputError: wrong names, types or shapes, NaN, or numbers of samples that differ.
    """
    wanted = {value.id: value for value in feeds}
    given = set(arrays) - {LABELS}
    if given != set(wanted):
        missing, extra = sorted(set(wanted) - given), sorted(given - set(wanted))
        listed = "; ".join([f"missing {missing}"] * bool(missing) + [f"unknown {extra}"] * bool(extra))
        raise InputError(f"{where}: wrong names ({listed}); {expected(feeds)}")
    for name, value in wanted.items():
        _check_array(where, arrays[name], value, feeds)
    counts = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise InputError(f"{where}: arrays differ in their number of samples, or have none: {counts}")
    return dict(arrays)


def check_filled(where: str | Path, counts: Sequence[int], feeds: Sequence[Value]) -> None:
    """Samples of at least one shape fill a batch of a model whose first extent is fixed.

    Args:
        counts: samples of each shape.

    Raises:
        InputError: they do not.
    """
    fixed = fixed_batch(feeds)
    if fixed and max(counts) < fixed:
        raise InputError(f"{where}: {max(counts)} samples of one shape fill no batch of {fixed}; {expected(feeds)}")


def _check_array(where: str | Path, array: Array, value: Value, feeds: Sequence[Value]) -> None:
    named = f"{where}: {value.id!r}"
    if value.dtype is not None and array.dtype != value.dtype.numpy:
        raise InputError(f"{named} is {array.dtype}, not {value.dtype}; {expected(feeds)}")
    if not array.ndim or (value.shape is not None and not _fits(array.shape, value.shape)):
        raise InputError(f"{named} has shape {list(array.shape)}; {expected(feeds)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InputError(f"{named} has NaN or infinity, first in sample {bad}; remove or repair those samples")


def _fits(actual: tuple[int, ...], declared: Sequence[Any]) -> bool:
    """Ranks agree and fixed extents too; the first axis counts samples."""
    return len(actual) == len(declared) and all(
        isinstance(dim, str) or dim == size for size, dim in zip(actual[1:], declared[1:], strict=True)
    )
