"""Weights as references: the bytes stay in the file they came from until somebody asks for an array."""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from immutables import Map
from onnx import TensorProto, helper, numpy_helper

from eopt.ir.errors import InputError, UsageError
from eopt.ir.types import DType
from eopt.ir.wire import Span

RELEASE_BYTES = 1 << 20  # smaller arrays are not worth a system call each time they are looked at


class Weight(Protocol):
    """A tensor that can be described, read as an array, and written without a second copy."""

    @property
    def header(self) -> TensorProto:
        """The tensor message; it lacks `raw_data` when `raw()` has it."""
        ...

    def raw(self) -> memoryview | None:
        """The bytes that belong into `raw_data`; None when the header is complete."""
        ...


@dataclass(frozen=True)
class InlineWeight:
    """A complete tensor message: small, string, or in typed fields."""

    header: TensorProto

    def raw(self) -> memoryview | None:
        return None


@dataclass(frozen=True)
class ArrayWeight:
    """An array made by a rewrite."""

    array: np.ndarray[Any, Any]

    @cached_property
    def header(self) -> TensorProto:
        return TensorProto(dims=self.array.shape, data_type=helper.np_dtype_to_tensor_dtype(self.array.dtype))

    def raw(self) -> memoryview | None:
        return np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data


@dataclass(frozen=True)
class PackedWeight:
    """An array of sub-byte elements made by a rewrite, as the bytes that are stored."""

    header: TensorProto
    packed: bytes

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> PackedWeight:
        """Pack an array."""
        tensor = numpy_helper.from_array(array)
        packed = tensor.raw_data
        tensor.ClearField("raw_data")
        return cls(tensor, packed)

    def raw(self) -> memoryview | None:
        return memoryview(self.packed)


@dataclass(frozen=True)
class SpanWeight:
    """Bytes in a mapped file: the model itself or its external data."""

    header: TensorProto
    file: MappedFile
    span: Span

    def raw(self) -> memoryview | None:
        return self.file.view[self.span.offset : self.span.offset + self.span.length]


@dataclass(frozen=True)
class AbsentWeight:
    """A tensor of which only type and shape are known: a model described by its architecture alone."""

    header: TensorProto

    @classmethod
    def of(cls, dtype: DType, shape: tuple[int, ...]) -> AbsentWeight:
        """Describe a tensor."""
        return cls(TensorProto(dims=shape, data_type=dtype.onnx))

    def raw(self) -> memoryview | None:
        raise UsageError("this model was made from its architecture alone and has no weights; give the model itself")


class MappedFile:
    """A read-only memory map that lives as long as a weight refers to it."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as handle:
                self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
                self.view = memoryview(self._map)
                self._identity = _identity(os.fstat(handle.fileno()))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except ValueError:
            raise InputError(f"{path}: empty file") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        self.path = path.absolute()

    def release(self, span: Span | None = None) -> None:
        """Give the pages of a span, or all, back to the system; they are read again when somebody looks."""
        span = span or Span(0, len(self.view))
        before = span.offset % mmap.PAGESIZE  # a range to be given back starts on a page
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, span.offset - before, span.length + before)

    def still_there(self) -> bool:
        """True while the path names the file that is mapped, not one that was written over it since."""
        try:
            return _identity(self.path.stat()) == self._identity
        except OSError:
            return False


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns


def weight_of(array: np.ndarray[Any, Any]) -> Weight:
    """Wrap an array; sub-byte types are packed at once, everything else stays as it is."""
    dtype = DType.from_onnx(helper.np_dtype_to_tensor_dtype(array.dtype))
    if dtype is None or dtype is DType.STRING:
        return InlineWeight(numpy_helper.from_array(array))
    return PackedWeight.of(array) if dtype.bits < 8 else ArrayWeight(array)


class WeightStore(Mapping[str, Weight]):
    """Immutable, ordered mapping from value name to weight."""

    def __init__(self, weights: Mapping[str, Weight] | Map[str, Weight], order: Map[str, int] | None = None) -> None:
        self._weights: Map[str, Weight] = weights if isinstance(weights, Map) else Map(weights)
        self._order = order or Map({name: index for index, name in enumerate(weights)})

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._weights, key=self._order.__getitem__))

    def __len__(self) -> int:
        return len(self._weights)

    def dtype(self, name: str) -> DType | None:
        """Element type of a weight."""
        return DType.from_onnx(self._weights[name].header.data_type)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight."""
        return tuple(self._weights[name].header.dims)

    def nbytes(self, name: str) -> int:
        """Bytes of a weight in packed form."""
        dtype = self.dtype(name)
        return 0 if dtype is None else -(-prod(self.shape(name)) * dtype.bits // 8)

    def is_absent(self, name: str) -> bool:
        """True where only type and shape of a weight are known."""
        return isinstance(self._weights[name], AbsentWeight)

    def is_parameter(self, name: str) -> bool:
        """True for tensors that are trained: floating point with several elements. Shapes, axes and scalars are not."""
        if name not in self._weights:
            return False
        dtype = self.dtype(name)
        return dtype is not None and dtype.is_float and prod(self.shape(name)) > 1

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """The weight as a read-only array; bytes in a file are mapped, and given back when the last view is gone."""
        weight = self._weights[name]
        raw, dtype = weight.raw(), self.dtype(name)
        if raw is None or dtype is None or dtype.bits < 8:
            tensor = weight.header if raw is None else _with_raw(weight.header, raw)
            return numpy_helper.to_array(tensor)
        array = np.frombuffer(raw, dtype=dtype.numpy)
        if array.size != prod(self.shape(name)):
            raise InputError(f"weight {name!r}: {array.size} elements stored, shape {self.shape(name)} needs others")
        if isinstance(weight, SpanWeight) and array.nbytes >= RELEASE_BYTES:  # views of views have this one as base
            weakref.finalize(array, weight.file.release, weight.span).atexit = False
        return array.reshape(self.shape(name))

    def message(self, name: str) -> TensorProto:
        """The whole weight as a tensor message of that name: a copy, meant for small ones."""
        weight = self._weights[name]
        raw = weight.raw()
        tensor = _with_raw(weight.header, raw) if raw is not None else TensorProto.FromString(b"")
        if raw is None:
            tensor.CopyFrom(weight.header)
        tensor.name = name
        return tensor

    def digest(self, name: str) -> str:
        """SHA-256 of type, shape and bytes: equal weights have equal digests, whatever their names."""
        weight, dtype = self._weights[name], self.dtype(name)
        digest = hashlib.sha256(f"{dtype}{self.shape(name)}".encode())
        raw = weight.raw()
        if raw is None and dtype in (None, DType.STRING):
            raw = memoryview(_content(weight.header).SerializeToString(deterministic=True))
        digest.update(raw if raw is not None else np.ascontiguousarray(self.array(name)).tobytes())
        if isinstance(weight, SpanWeight):
            weight.file.release(weight.span)
        return digest.hexdigest()

    def updated(self, added: Mapping[str, Weight]) -> WeightStore:
        """A store with these weights added at the end, or exchanged in place."""
        weights, order = self._weights.mutate(), self._order.mutate()
        next_index = max(self._order.values(), default=-1) + 1 if added else 0
        for name, weight in added.items():
            weights[name] = weight
            if name not in order:
                order[name] = next_index
                next_index += 1
        return WeightStore(weights.finish(), order.finish())

    def without(self, names: set[str]) -> WeightStore:
        """A store without these weights."""
        weights = self._weights.mutate()
        for name in names:
            del weights[name]
        return WeightStore(weights.finish(), self._order)


def _content(header: TensorProto) -> TensorProto:
    """What a tensor holds, without its name and where it lies."""
    content = TensorProto()
    content.CopyFrom(header)
    for field in ("name", "doc_string", "data_location", "metadata_props"):
        content.ClearField(field)
    return content


def _with_raw(header: TensorProto, raw: memoryview) -> TensorProto:
    tensor = TensorProto()
    tensor.CopyFrom(header)
    tensor.ClearField("data_location")
    del tensor.external_data[:]
    tensor.raw_data = bytes(raw)
    return tensor
