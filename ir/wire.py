"""Reading an ONNX file without its weights: finds the raw bytes of large initialisers in the protobuf encoding.

The scan follows https://protobuf.dev/programming-guides/encoding/ and three field numbers of onnx.proto. What remains
after stripping is small, so a model of any size is parsed, checked and shape-inferred without reading its weights, and
protobuf's 2 GiB limit never applies to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eopt.ir.errors import InputError

MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_RAW_DATA = 9
KEEP_BYTES = 1024  # shapes, axes and scalars stay inside: shape inference reads them

_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Field:
    """One encoded field: its number, and where it starts and where its payload lies in the buffer."""

    number: int
    start: int
    payload: int
    end: int
    is_message: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `[offset, offset + length)` of a file."""

    offset: int
    length: int


def strip(data: memoryview) -> tuple[bytes, list[Span | None]]:
    """Split an encoded ModelProto into one without large raw tensor data, and where that data lies.

    Returns:
        The stripped encoding, and for each initialiser of the main graph, in order, the span taken out (or None).

    Raises:
        InputError: the bytes are not a complete protobuf message.
    """
    graphs = [field for field in fields(data, 0, len(data)) if field.number == MODEL_GRAPH and field.is_message]
    if len(graphs) != 1:  # legal protobuf concatenates repeated graphs; nobody writes it, so nothing is stripped
        return bytes(data), []
    graph = graphs[0]
    body, spans = _strip_graph(data, graph)
    stripped = b"".join(
        [bytes(data[: graph.start]), tag(MODEL_GRAPH), varint(len(body)), body, bytes(data[graph.end :])]
    )
    return stripped, spans


def _strip_graph(data: memoryview, graph: Field) -> tuple[bytes, list[Span | None]]:
    parts: list[bytes] = []
    spans: list[Span | None] = []
    copied = graph.payload
    for tensor in fields(data, graph.payload, graph.end):
        if tensor.number != GRAPH_INITIALIZER or not tensor.is_message:
            continue
        raw = _raw_data(data, tensor)
        spans.append(Span(raw.payload, raw.end - raw.payload) if raw else None)
        if raw is None:
            continue
        header = bytes(data[tensor.payload : raw.start]) + bytes(data[raw.end : tensor.end])
        parts += [bytes(data[copied : tensor.start]), tag(GRAPH_INITIALIZER), varint(len(header)), header]
        copied = tensor.end
    parts.append(bytes(data[copied : graph.end]))
    return b"".join(parts), spans


def _raw_data(data: memoryview, tensor: Field) -> Field | None:
    for field in fields(data, tensor.payload, tensor.end):
        if field.number == TENSOR_RAW_DATA and field.end - field.payload > KEEP_BYTES:
            return field
    return None


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields encoded in `data[start:end]`."""
    position = start
    while position < end:
        key, payload = _read_varint(data, position, end)
        wire_type = key & 7
        if wire_type == _LEN:
            length, payload = _read_varint(data, payload, end)
            stop = payload + length
        elif wire_type == _VARINT:
            stop = _read_varint(data, payload, end)[1]
        elif wire_type in (_FIXED32, _FIXED64):
            stop = payload + (4 if wire_type == _FIXED32 else 8)
        else:
            raise InputError(f"not an ONNX file: byte {position} is no protobuf field")
        if stop > end:
            raise InputError(f"truncated ONNX file: the field at byte {position} needs {stop - end} bytes more")
        yield Field(key >> 3, position, payload, stop, wire_type == _LEN)
        position = stop


def _read_varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise InputError(f"truncated ONNX file: unfinished number at byte {position}")


def varint(value: int) -> bytes:
    """Base-128 encoding of a non-negative integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(number: int) -> bytes:
    """Key of a length-delimited field."""
    return varint(number << 3 | _LEN)
