"""Calibration and evaluation samples: what a Dataset is, and where one can come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eopt.backends import data_code, data_npz, data_text
from eopt.backends.base import Array, Feed
from eopt.backends.data_check import LABELS, check_filled, expected, fixed_batch
from eopt.ir.errors import InputError
from eopt.ir.types import Value

__all__ = ["LABELS", "Dataset", "Part", "expected", "load", "synthetic"]

BATCH = 32
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Part:
    """Samples of one shape, along the first axis of every array.

    Attributes:
        arrays: by input name, shape (samples, ...).
        labels: shape (samples, ...) or None.
    """

    arrays: Mapping[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()))) if self.arrays else 0

    def take(self, indices: Array) -> Part:
        """The samples at these places."""
        picked = {name: array[indices] for name, array in self.arrays.items()}
        return Part(picked, None if self.labels is None else self.labels[indices])


@dataclass(frozen=True, init=False)
class Dataset:
    """Samples, in parts where they differ in shape; nothing is padded.

    Attributes:
        parts: at least one; samples are counted through them in order.
    """

    parts: tuple[Part, ...]

    def __init__(self, arrays: Mapping[str, Array], labels: Array | None = None, further: Iterable[Part] = ()) -> None:
        """One part of these arrays, and `further` ones whose samples have other shapes."""
        object.__setattr__(self, "parts", (Part(arrays, labels), *further))

    @classmethod
    def joined(cls, parts: Iterable[Mapping[str, Array]]) -> Dataset:
        """Arrays by name, `labels` among them, put together where their samples have one shape."""
        alike: dict[object, list[Mapping[str, Array]]] = {}
        for part in parts:
            alike.setdefault(frozenset((name, array.shape[1:]) for name, array in part.items()), []).append(part)
        merged = [{name: np.concatenate([one[name] for one in same]) for name in same[0]} for same in alike.values()]
        return cls._of([Part(arrays, arrays.pop(LABELS, None)) for arrays in merged])

    @classmethod
    def _of(cls, parts: Sequence[Part]) -> Dataset:
        return cls(parts[0].arrays, parts[0].labels, parts[1:])

    @property
    def arrays(self) -> Mapping[str, Array]:
        """All samples as one array by input name.

        Raises:
            InputError: they differ in shape.
        """
        if len(self.parts) > 1:
            raise InputError(f"the samples have {len(self.parts)} different shapes where one is needed")
        return self.parts[0].arrays

    @property
    def labels(self) -> Array | None:
        """All labels, shape (samples, ...), or None.

        Raises:
            InputError: they differ in shape, or only some samples have one.
        """
        given = [part.labels for part in self.parts if part.labels is not None]
        if not given:
            return None
        if len(given) < len(self.parts) or len({labels.shape[1:] for labels in given}) > 1:
            raise InputError("the labels of the samples differ in shape, or some have none; one shape is needed")
        return np.concatenate(given) if len(given) > 1 else given[0]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def batches(self, feeds: Sequence[Value], size: int = BATCH) -> Iterator[Feed]:
        """Batches of at most `size` samples of one shape; a model with a fixed first extent gets exactly that many."""
        fixed = fixed_batch(feeds)
        step = fixed or size
        for part in self.parts:
            last = len(part) - len(part) % step if fixed else len(part)
            for start in range(0, last, step):
                yield {name: array[start : start + step] for name, array in part.arrays.items()}

    def take(self, indices: Array | slice) -> Dataset:
        """The samples at these places, part by part."""
        wanted = np.arange(len(self))[indices]
        first, taken = 0, []
        for part in self.parts:
            taken.append(part.take(wanted[(wanted >= first) & (wanted < first + len(part))] - first))
            first += len(part)
        return Dataset._of([part for part in taken if len(part)] or taken[:1])

    def split(self, share: float, seed: int) -> tuple[Dataset, Dataset]:
        """Two disjoint parts, the second holding about `share` of the samples, at least one."""
        order = np.random.default_rng(seed).permutation(len(self))
        held_out = max(1, round(share * len(self)))
        return self.take(np.sort(order[held_out:])), self.take(np.sort(order[:held_out]))


def load(source: str | Path, feeds: Sequence[Value], tokenizer: str | Path | None = None) -> Dataset:
    """Read samples; those that differ in shape, as in length, stay apart.

    Args:
        source: `file.npz` (keys are input names, optional `labels`), a folder of such files, `file.jsonl` (see
            `data_text`), or `module:function` where no such file exists (see `data_code`).
        tokenizer: a local Hugging Face folder, for the texts of a `.jsonl`.

    Raises:
        InputError: missing, damaged, wrong names, types or shapes, NaN; the message says what the model expects.
        UsageError: no such module or function, or a package that is not installed.
    """
    path = Path(source)
    if not path.exists() and _REFERENCE.fullmatch(str(source)):
        parts = data_code.read(str(source), feeds)
    elif path.suffix == ".jsonl":
        parts = data_text.read(path, feeds, tokenizer)
    else:
        parts = data_npz.read(path, feeds)
    found = Dataset.joined(parts)
    check_filled(source, [len(part) for part in found.parts], feeds)
    return found


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
