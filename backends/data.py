"""Calibration and evaluation samples: read from untrusted files, checked against the model's inputs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.base import Array, Feed
from eopt.ir.errors import InputError
from eopt.ir.types import Value

LABELS = "labels"
MAX_BYTES = 8 << 30
BATCH = 32


@dataclass(frozen=True)
class Dataset:
    """Samples along the first axis of every array.

    Attributes:
        arrays: by input name, shape (samples, ...).
        labels: shape (samples,) or None.
    """

    arrays: Mapping[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()))) if self.arrays else 0

    def batches(self, feeds: Sequence[Value], size: int = BATCH) -> Iterator[Feed]:
        """Batches of at most `size` samples; a model with a fixed first extent gets exactly that many."""
        fixed = {value.shape[0] for value in feeds if value.shape and isinstance(value.shape[0], int)}
        step = min(fixed) if fixed else size
        last = len(self) - len(self) % step if fixed else len(self)
        for start in range(0, last, step):
            yield {name: array[start : start + step] for name, array in self.arrays.items()}

    def take(self, indices: Array | slice) -> Dataset:
        """The samples at these places."""
        picked = {name: array[indices] for name, array in self.arrays.items()}
        return Dataset(picked, None if self.labels is None else self.labels[indices])

    def split(self, share: float, seed: int) -> tuple[Dataset, Dataset]:
        """Two disjoint parts, the second holding about `share` of the samples, at least one."""
        order = np.random.default_rng(seed).permutation(len(self))
        held_out = max(1, round(share * len(self)))
        return self.take(np.sort(order[held_out:])), self.take(np.sort(order[:held_out]))


def load(path: str | Path, feeds: Sequence[Value]) -> Dataset:
    """Read `file.npz` (keys are input names, optional `labels`) or a folder of such files.

    Raises:
        InputError: missing, damaged, wrong names, types or shapes, NaN; the message says what the model expects.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no .npz file in this folder; {expected(feeds)}")
    parts = [_checked(file, _read(file), feeds) for file in files]
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    labels = merged.pop(LABELS, None)
    return Dataset(merged, labels)


def expected(feeds: Sequence[Value]) -> str:
    """What calibration data has to look like, with a ready-made line."""
    described = ", ".join(f"{value.id}: {value.dtype}{list(value.shape or ())}".replace("'", "") for value in feeds)
    example = ", ".join(f"{value.id}=..." if value.id.isidentifier() else f"**{{{value.id!r}: ...}}" for value in feeds)
    return f"the model expects {described}; write it with np.savez('data.npz', {example})"


def synthetic(feeds: Sequence[Value], limits: Mapping[str, int], seed: int, samples: int = 4) -> Dataset:
    """Seeded random samples for a model nobody gave data for: normal floats, indices below `limits`, other integers 1
    (most are masks, and a mask at random leaves rows that attend to nothing)."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for value in feeds:
        if value.dtype is None or value.shape is None:
            raise InputError(f"input {value.id!r}: no tensor type or rank declared, give samples with --data")
        first = value.shape[0] if value.shape and isinstance(value.shape[0], int) else samples
        shape = (first, *(dim if isinstance(dim, int) else 16 for dim in value.shape[1:])) if value.shape else ()
        if value.dtype.is_float:
            arrays[value.id] = rng.standard_normal(shape).astype(value.dtype.numpy)
        else:
            below = limits.get(value.id)
            drawn = np.ones(shape) if below is None else rng.integers(0, below, shape)
            arrays[value.id] = drawn.astype(value.dtype.numpy)
    return Dataset(arrays)


def _read(path: Path) -> dict[str, Array]:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise InputError(f"{path}: {size} bytes unpacked, more than {MAX_BYTES}; split it into a folder of files")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: no readable .npz file ({reason})") from None


def _checked(path: Path, arrays: Mapping[str, Array], feeds: Sequence[Value]) -> dict[str, Array]:
    wanted = {value.id: value for value in feeds}
    given = set(arrays) - {LABELS}
    if given != set(wanted):
        missing, extra = sorted(set(wanted) - given), sorted(given - set(wanted))
        listed = "; ".join([f"missing {missing}"] * bool(missing) + [f"unknown {extra}"] * bool(extra))
        raise InputError(f"{path}: wrong names ({listed}); {expected(feeds)}")
    for name, value in wanted.items():
        _check_array(path, arrays[name], value, feeds)
    counts = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise InputError(f"{path}: arrays differ in their number of samples, or have none: {counts}")
    return dict(arrays)


def _check_array(path: Path, array: Array, value: Value, feeds: Sequence[Value]) -> None:
    where = f"{path}: {value.id!r}"
    if value.dtype is not None and array.dtype != value.dtype.numpy:
        raise InputError(f"{where} is {array.dtype}, not {value.dtype}; {expected(feeds)}")
    if value.shape is not None and not _fits(array.shape, value.shape):
        raise InputError(f"{where} has shape {list(array.shape)}; {expected(feeds)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InputError(f"{where} has NaN or infinity, first in sample {bad}; remove or repair those samples")


def _fits(actual: tuple[int, ...], declared: Sequence[Any]) -> bool:
    """Ranks agree and fixed extents too; the first axis counts samples, so it only has to fill whole batches."""
    if len(actual) != len(declared) or not actual:
        return False
    whole = not isinstance(declared[0], int) or actual[0] >= declared[0]
    return whole and all(
        isinstance(dim, str) or dim == size for size, dim in zip(actual[1:], declared[1:], strict=True)
    )
