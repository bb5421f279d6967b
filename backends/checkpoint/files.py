"""Folders of safetensors files: read tensor by tensor through a map, written one tensor at a time.

https://huggingface.co/docs/safetensors: eight bytes of header length, a JSON header, and the tensors without gaps.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from eopt.ir.errors import InputError
from eopt.ir.onnx_out import atomic
from eopt.ir.types import DType
from eopt.ir.weights import MappedFile

Array = np.ndarray[Any, Any]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # what Hugging Face writes by default
MAX_INDEX_BYTES = 1 << 26
_PLAIN = re.compile(r"[\w-][\w.-]*\.safetensors")
_ALIGNMENT = 8

_TYPES = {
    name: DType(spelt)
    for name, spelt in {
        "F64": "float64",
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "F8_E4M3": "float8e4m3fn",
        "F8_E5M2": "float8e5m2",
        "BOOL": "bool",
        **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
        **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    }.items()
}
_NAMES = {dtype.numpy: name for name, dtype in _TYPES.items()}


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: offset in bytes from the start of the file."""

    file: MappedFile
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @cached_property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return prod(self.shape) * self.dtype.itemsize

    def array(self) -> Array:
        """The tensor; its pages are mapped, not read."""
        raw = self.file.view[self.offset : self.offset + self.nbytes]
        return np.frombuffer(raw, self.dtype).reshape(self.shape)


def opened(folder: Path) -> dict[str, Stored]:
    """The tensors of a Hugging Face folder by name, in the order of its files.

    Raises:
        InputError: no safetensors there, damaged ones, or an index that names files elsewhere.
    """
    if (folder / SINGLE).is_file():
        return _tensors(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise InputError(f"{folder}: neither {SINGLE} nor {INDEX} here; a checkpoint starts from safetensors weights")
    found: dict[str, Stored] = {}
    names = _indexed(folder / INDEX)
    for file in dict.fromkeys(names.values()):
        found |= {name: stored for name, stored in _tensors(folder / file).items() if names.get(name) == file}
    missing = sorted(names.keys() - found.keys())
    if missing:
        raise InputError(f"{folder / INDEX}: {missing[0]!r} is not in {names[missing[0]]}")
    return found


def _indexed(path: Path) -> dict[str, str]:
    """File by tensor, as an index tells."""
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise InputError(f"{path}: larger than {MAX_INDEX_BYTES} bytes")
    try:
        names = json.loads(path.read_bytes())["weight_map"]
        plain = all(isinstance(file, str) and _PLAIN.fullmatch(file) for file in names.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: not an index of safetensors files (no `weight_map`)") from None
    if not plain:
        raise InputError(f"{path}: names a file that is not a plain name of this folder ending in .safetensors")
    return dict(names)


def _tensors(path: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as header:  # checks sizes, offsets and names
            order = header.offset_keys()
            slices = {name: header.get_slice(name) for name in order}
            described = {name: (found.get_dtype(), found.get_shape()) for name, found in slices.items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({str(error)[:120]})") from None
    file = MappedFile(path)
    offset = _ALIGNMENT + struct.unpack("<Q", file.view[:_ALIGNMENT])[0]
    found = {}
    for name, (kind, shape) in described.items():
        if kind not in _TYPES:
            raise InputError(f"{path}: {name!r} is of type {kind}, which no model to be quantised has")
        found[name] = Stored(file, offset, _TYPES[kind].numpy, tuple(shape))
        offset += found[name].nbytes
    return found


@dataclass(frozen=True)
class Entry:
    """Tensors that are made together when they are written: type and shape by name, and who makes them."""

    specs: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    load: Callable[[], Mapping[str, Array]]

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(prod(shape) * dtype.itemsize for dtype, shape in self.specs.values())


def write(folder: Path, entries: Sequence[Entry], shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as one file, or as files of about this size with an index; one entry is in memory at a time.

    Raises:
        OutputError: the folder cannot be written.
    """
    # Tensors have no gaps between them, so what leaves an odd place comes last: readers want them aligned.
    shards = _shards(sorted(entries, key=_alignment, reverse=True), shard_bytes)
    names = [SINGLE] if len(shards) == 1 else [_shard_name(number, len(shards)) for number in range(len(shards))]
    with ExitStack() as files:  # left in reverse: all appear, or none
        for name, shard in zip(names, shards, strict=True):
            _write_shard(files.enter_context(atomic(folder / name)), shard)
        if len(shards) > 1:
            files.enter_context(atomic(folder / INDEX)).write(_index(names, shards))


def _alignment(item: Entry) -> int:
    """The largest power of two up to 8 that divides the size: the order among equals stays."""
    return min(item.nbytes & -item.nbytes or _ALIGNMENT, _ALIGNMENT)


def _shards(entries: Sequence[Entry], shard_bytes: int) -> list[list[Entry]]:
    shards: list[list[Entry]] = [[]]
    room = shard_bytes
    for item in entries:
        if item.nbytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(item)
        room -= item.nbytes
    return shards


def _shard_name(number: int, count: int) -> str:
    return f"model-{number + 1:05}-of-{count:05}.safetensors"


def _index(names: Sequence[str], shards: Sequence[Sequence[Entry]]) -> bytes:
    total = sum(item.nbytes for shard in shards for item in shard)
    files = {name: file for file, shard in zip(names, shards, strict=True) for item in shard for name in item.specs}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": files}, indent=2).encode()


def _write_shard(handle: BinaryIO, shard: Sequence[Entry]) -> None:
    handle.write(_header(shard))
    for item in shard:
        made = item.load()
        for name in item.specs:
            handle.write(np.ascontiguousarray(made[name]).reshape(-1).view(np.uint8).data)


def _header(shard: Sequence[Entry]) -> bytes:
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files that do not say so
    for (name, (dtype, shape)), (start, end) in zip(_specs(shard), _places(shard), strict=True):
        described[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _specs(shard: Sequence[Entry]) -> Iterator[tuple[str, tuple[np.dtype[Any], tuple[int, ...]]]]:
    return (spec for item in shard for spec in item.specs.items())


def _places(shard: Sequence[Entry]) -> Iterator[tuple[int, int]]:
    start = 0
    for _, (dtype, shape) in _specs(shard):
        end = start + prod(shape) * dtype.itemsize
        yield start, end
        start = end
