"""Hostile inputs from a seed: damaged files, altered messages, altered and invented text."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import AttributeProto, ModelProto

NUMBERS = [0, 1, -1, 2, 3, 7, 64, 1000, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 2**40, -2]
FLOATS = [0.0, -0.0, 1e38, 1e-45, float("inf"), float("-inf"), float("nan"), -1.5]
NAMES = ["", "x", "y", "w", "a.b", "ai.onnx", "eopt.scope", "a:B/" * 40, "é\u2028", "[" * 100, "_", "0", "n" * 5000]
BLOBS = [b"", b"\xff\xfe", b"\0", b"a" * 3000, b"...", b"i,j->ij", b"\xed\xa0\x80"]
VARINT_MAX = b"\xff" * 9 + b"\x01"


def damaged(rng: Random, corpus: Sequence[bytes]) -> bytes:
    """An encoded model with a few bytes changed, gone or come from elsewhere."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        rng.choice(BYTE_CHANGES)(rng, data, corpus)
    return bytes(data)


def _flip(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _overwrite(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])


def _truncate(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    del data[rng.randint(0, len(data)) :]


def _splice(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = rng.choice(corpus)
    start = rng.randint(0, len(other))
    at = rng.randint(0, len(data))
    data[at : at + rng.choice([0, 0, 8, 64])] = other[start : start + rng.choice([4, 16, 64, 400])]


def _field(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """A field of any number and kind, often with a length or number that is not to be believed."""
    key = _varint(rng.randrange(1, 30) << 3 | rng.choice([0, 1, 2, 2, 2, 3, 4, 5, 6, 7]))
    content = rng.choice([VARINT_MAX, _varint(rng.choice([2**31, 2**35, 5])), b"\x02\x08\x01", b"\0", bytes(9)])
    at = rng.randint(0, len(data))
    data[at:at] = key + content


def _nest(rng: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """One message inside the other, thousands of levels deep, under any field number."""
    numbers, inner = rng.choice([[7], [5, 1, 6], [6, 5, 1], [1], [4], [25, 7, 1], [20, 21]]), b"\x08\x01"
    for level in range(rng.choice([20, 90, 120, 3000])):
        inner = _varint(numbers[level % len(numbers)] << 3 | 2) + _varint(len(inner)) + inner
    data += inner


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded) + bytes([value])


BYTE_CHANGES: list[Callable[[Random, bytearray, Sequence[bytes]], None]] = [
    _flip, _flip, _overwrite, _truncate, _splice, _field, _nest,
]  # fmt: skip


def altered(rng: Random, corpus: Sequence[bytes]) -> bytes:
    """A model that still parses, with hostile values in some fields."""
    model = ModelProto.FromString(rng.choice(corpus))
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        messages = list(_below(model))
        try:
            _alter(rng, rng.choice(messages), messages)
        except (DecodeError, EncodeError):
            continue  # deeper than protobuf goes
    try:
        return model.SerializeToString()
    except EncodeError:
        return b""


def _below(root: Message) -> Iterator[Message]:
    pending = [root]
    while pending:
        message = pending.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += list(value) if field.is_repeated else [value]


def _alter(rng: Random, message: Any, messages: Sequence[Message]) -> None:
    field = rng.choice(message.DESCRIPTOR.fields)
    if field.is_repeated:
        _alter_list(rng, getattr(message, field.name), field, messages)
    elif field.message_type is not None:
        donors = [other for other in messages if field.message_type == other.DESCRIPTOR]
        if donors:
            getattr(message, field.name).CopyFrom(_copy(rng.choice(donors)))
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(rng, field, messages))


def _alter_list(rng: Random, items: Any, field: Any, messages: Sequence[Message]) -> None:
    action = rng.choice(["drop", "double", "add", "reverse"])
    if action == "drop" and len(items):
        del items[rng.randrange(len(items))]
    elif action == "double" and len(items):
        items.extend([items[rng.randrange(len(items))]])
    elif action == "reverse":
        kept = [_copy(item) if field.message_type else item for item in items][::-1]
        del items[:]
        items.extend(kept)
    elif field.message_type is None:
        items.extend([_scalar(rng, field, messages) for _ in range(rng.choice([1, 1, 2, 20]))])
    else:
        donors = [other for other in messages if field.message_type == other.DESCRIPTOR]
        items.extend([_copy(rng.choice(donors))] if donors else [])


def _copy(message: Message) -> Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _scalar(rng: Random, field: Any, messages: Sequence[Message]) -> Any:
    if field.enum_type is not None:
        return rng.choice(field.enum_type.values).number
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        return rng.choice(BLOBS) if field.type == field.TYPE_BYTES else _name(rng, messages)
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    low, high = _RANGES.get(kind, (-(2**63), 2**63 - 1))
    return rng.choice([number for number in NUMBERS if low <= number <= high])


_RANGES = {1: (-(2**31), 2**31 - 1), 3: (0, 2**32 - 1), 4: (0, 2**64 - 1), 7: (0, 1)}  # by cpp_type


def _name(rng: Random, messages: Sequence[Message]) -> str:
    """Often one in use elsewhere: that is what makes cycles, duplicates and wrong operators."""
    other: Any = rng.choice(messages)
    for name in ("name", "op_type", "key", "domain"):
        if rng.random() < 0.5 and name in other.DESCRIPTOR.fields_by_name:
            return str(getattr(other, name))
    return rng.choice(NAMES)


WORDS = """model input output weight { } ( ) [ ] : , = ? _ "" "a b" "\\ud800" "\\u0000" "x float32 int64 bool string
int4 bfloat16 float4e2m1 complex64 float99 x y w zeros ones normal(1) normal(1e400) normal(nan) sha256:00 proto("CAE=")
proto("") proto("/w") 0 1 -1 2 9223372036854775808 1e999 -1e999 1.5 "inf" "nan" Relu Add Constant If a.B MatMul {axis:
{name: {value: null true {"":20} {"":0} {"":[]} [[1,2],[3]] [1,"a"] [99999999999999999999]""".split()
WORDS += ["9" * 5000, "[" * 2000, "a {\n" * 70, "\\", "\u2028", "٣", "#"]


def edited(rng: Random, texts: Sequence[str]) -> str:
    """Text of a model with characters, words and lines changed."""
    text = rng.choice(texts)
    for _ in range(rng.choice([1, 1, 2, 4, 10])):
        lines = text.split("\n")
        at, row = rng.randint(0, len(text)), rng.randrange(len(lines))
        word = rng.choice(WORDS)
        text = rng.choice([
            text[:at] + word + text[at:],
            text[:at] + word + text[at + rng.randrange(12) :],
            text[:at] + text[at + rng.choice([1, 1, 5, 100]) :],
            "\n".join([*lines[:row], rng.choice(lines), *lines[row:]]),
            "\n".join([*lines[:row], *lines[row + 1 :]]),
            " ".join(word if token == rng.choice(text.split() or [""]) else token for token in text.split(" ")),
        ])  # fmt: skip
    return text


def invented(rng: Random) -> str:
    """Lines of the grammar, with a hostile word wherever one fits."""
    word = lambda *usual: rng.choice(usual) if rng.random() < 0.9 else rng.choice(WORDS)
    shape = lambda: "[" + ", ".join(word("2", "3", "n") for _ in range(rng.randrange(4))) + "]"
    value = lambda: f"{word('x', 'y', 'w', 'z')}: {word('float32', 'int64', 'string', '?')}{shape()}"
    lines = [f"model {word('{' + chr(34) * 2 + ': 20}')}"]
    for _ in range(rng.randrange(12)):
        operator = word("Relu", "Add", "Reshape", "Constant", "Gemm", "Conv", "Softmax", "Split", "a.B")
        attribute = rng.choice(["", "", f" {{{word('axis', 'name', 'value')}: {word('1', '[1, 2]', '1.5')}}}"])
        content = word("zeros", "ones", "normal(1)", "[1, 2]")
        lines.append(rng.choice([
            f"input {value()}", f"output {value()}", f"weight {value()} = {content}",
            f"{value()} = {operator}({word('x', 'y', '_')}, {word('w', 'x')}){attribute}",
            f"{word('layer')}: {word('Layer')} {{", "}",
        ]))  # fmt: skip
    return "\n".join(lines)


def proto_text(rng: Random, corpus: Sequence[bytes]) -> str:
    """An operator with a damaged message as its attribute."""
    found = [
        message for message in _below(ModelProto.FromString(rng.choice(corpus))) if isinstance(message, AttributeProto)
    ]
    encoded = base64.b64encode(damaged(rng, [item.SerializeToString() for item in found] or [b""])).decode()
    return f'input x: float32[2]\ny: float32[2] = If(x) {{then_branch: proto("{encoded}")}}\noutput y: float32[2]'
