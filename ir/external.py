"""ONNX external data: mapped, and only from inside the model's own folder."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import TensorProto

from eopt.ir.errors import InputError
from eopt.ir.tensors import check
from eopt.ir.types import DType
from eopt.ir.weights import MappedFile, SpanWeight
from eopt.ir.wire import Span

Mapped = dict[str, MappedFile]
"""External files already open, by location."""

INLINE_BYTES = 1 << 30


def inline(tensors: Iterable[TensorProto], folder: Path | None, mapped: Mapped) -> None:
    """Check tensors of subgraphs, functions and attributes, and take in what they keep in files: the tree holds their
    messages whole, and nothing that decodes them later may look for a file.

    Raises:
        InputError: as `weight`, as `tensors.check`, or more than `INLINE_BYTES` in files.
    """
    total = 0
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            found = weight(tensor, folder, mapped)
            total += found.span.length
            if total > INLINE_BYTES:
                raise InputError(f"subgraphs and attributes keep more than {INLINE_BYTES} bytes in external data")
            tensor.raw_data = bytes(found.raw() or b"")
            tensor.ClearField("data_location")
            del tensor.external_data[:]
        check(tensor)


def weight(tensor: TensorProto, folder: Path | None, mapped: Mapped) -> SpanWeight:
    """The weight a tensor's `external_data` points to; files already open are found in `mapped`.

    Raises:
        InputError: an absolute path, `..`, a link, a missing file, or bytes beyond its end.
    """
    where = f"initializer {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise InputError(f"{where}: its external data {location!r} cannot be found; read the model from its file")
    if location not in mapped:
        mapped[location] = MappedFile(_inside(folder, location, where))
    size = len(mapped[location].view)
    needed = _needed_bytes(tensor, where)
    offset = _number(entries.get("offset", "0"), where)
    length = _number(entries.get("length", str(needed)), where)
    if length != needed:
        raise InputError(f"{where}: external data holds {length} bytes, type and shape need {needed}")
    if offset + length > size:
        raise InputError(f"{where}: bytes {offset} to {offset + length} lie beyond the end of {location!r} ({size})")
    return SpanWeight(tensor, mapped[location], Span(offset, length))


def _inside(folder: Path, location: str, where: str) -> Path:
    parts = PurePosixPath(location).parts
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
    if not parts or absolute or ".." in parts or "\\" in location or "\0" in location:
        raise InputError(f"{where}: external data {location!r} must be a plain path inside the model's folder")
    steps = [folder.joinpath(*parts[: number + 1]) for number in range(len(parts))]
    try:
        if any(step.is_symlink() for step in steps):
            raise InputError(f"{where}: external data {location!r} is a link; put the file itself there")
        missing = not steps[-1].is_file()
    except OSError as error:
        raise InputError(f"{where}: external data {location[:64]!r} cannot be looked up ({error.strerror})") from None
    if missing:
        raise InputError(f"{where}: external data file {location!r} is missing from {folder}")
    return steps[-1]


def _needed_bytes(tensor: TensorProto, where: str) -> int:
    dtype = DType.from_onnx(tensor.data_type)
    if dtype is None or dtype is DType.STRING or any(dim < 0 for dim in tensor.dims):
        raise InputError(f"{where}: type {tensor.data_type} or shape {list(tensor.dims)} cannot be external")
    elements: int = prod(tensor.dims)
    return -(-elements * dtype.bits // 8)


def _number(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InputError(f"{where}: external data offset or length {text[:32]!r} is not a number")
    return int(text)
