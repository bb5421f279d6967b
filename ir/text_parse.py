"""Read the text form back: a small recursive-descent parser over one line at a time, safe on hostile input."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper

from eopt.ir import external, limits, messages, onnx_out
from eopt.ir.errors import InputError
from eopt.ir.model import Model, OnnxEnvelope
from eopt.ir.node import Attrs, Op, Region
from eopt.ir.scopes import MAX_DEPTH
from eopt.ir.types import DType, Shape, Value
from eopt.ir.verify import verify
from eopt.ir.weights import Weight, WeightStore, weight_of

MAX_CHARACTERS = 64 << 20
MAX_ELEMENTS = 1 << 24
MAX_DIGITS = 400
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<name>[A-Za-z_][A-Za-z0-9_.]*)"""
    r"""|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<sign>[][(){}:,=?]))"""
)


def loads(text: str, weights: Mapping[str, Weight] | None = None) -> Model:
    """Parse a model; weights printed by digest are taken from `weights` by name.

    Weights may also be written as lists, or as `zeros`, `ones` and `normal(seed)` in tests.

    Raises:
        InputError: naming line and column, and what was expected there.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"text form: longer than {MAX_CHARACTERS} characters")
    return _Parser(weights or {}).model(text)


@dataclass
class _Block:
    """An open region: its name and class, and what it holds so far."""

    name: str = ""
    cls: str = ""
    children: list[Op | Region] = field(default_factory=list)


class _Parser:
    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self.given = weights
        self.opsets: dict[str, int] = {}
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.weights: dict[str, Weight] = {}
        self.stack = [_Block()]
        self.next_uid = 1

    def model(self, text: str) -> Model:
        for number, content in enumerate(text.splitlines(), start=1):
            if content.strip() and not content.lstrip().startswith("#"):
                self._line(_Line(content, number))
        if len(self.stack) != 1:
            raise InputError(f"text form: region {self.stack[-1].name!r} is not closed")
        root = Region(0, "", children=tuple(self.stack[0].children))
        envelope = OnnxEnvelope(_skeleton(self.opsets))
        store = WeightStore(self.weights)
        model = Model(root, tuple(self.inputs), tuple(self.outputs), store, envelope, self.opsets)
        verify(model)
        limits.check(onnx_out.skeleton(model))
        return model

    def _line(self, line: _Line) -> None:
        word = line.peek()
        if word == "}":
            self._close(line)
        elif word == "model" and line.is_keyword():
            line.next()
            self.opsets = line.opsets()
        elif word in ("input", "output") and line.is_keyword():
            line.next()
            (self.inputs if word == "input" else self.outputs).append(line.value())
        elif word == "weight" and line.is_keyword():
            line.next()
            self._weight(line)
        elif line.content.rstrip().endswith("{"):
            self._open(line)
        else:
            self.stack[-1].children.append(self._op(line))
        line.end()

    def _open(self, line: _Line) -> None:
        if len(self.stack) > MAX_DEPTH:
            line.fail(f"regions nested deeper than {MAX_DEPTH}")
        name = line.name("a region name")
        cls = ""
        if line.peek() == ":":
            line.next()
            cls = line.name("a class name")
        line.expect("{")
        self.stack.append(_Block(name, cls))

    def _close(self, line: _Line) -> None:
        line.expect("}")
        if len(self.stack) == 1:
            line.fail("no region is open")
        block = self.stack.pop()
        region = Region(self._uid(), block.name, block.cls, children=tuple(block.children))
        self.stack[-1].children.append(region)

    def _op(self, line: _Line) -> Op:
        outputs = [line.value()]
        while line.peek() == ",":
            line.next()
            outputs.append(line.value())
        line.expect("=")
        domain, _, kind = line.name("an operator").rpartition(".")
        inputs = line.inputs()
        attributes = line.attributes() if line.peek() == "{" else []
        name = next((a.s.decode() for a in attributes if a.name == "name"), "")
        uid = self._uid()
        kept = Attrs(a for a in attributes if a.name != "name")
        return Op(kind, tuple(inputs), tuple(outputs), kept, domain, uid, name, frozenset((uid,)))

    def _weight(self, line: _Line) -> None:
        value = line.value()
        line.expect("=")
        if value.dtype is None or value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
            line.fail("a weight needs a type and a fixed shape")
        shape = tuple(int(dim) for dim in value.shape)
        self.weights[value.id] = self._content(line, value.id, value.dtype, shape)

    def _content(self, line: _Line, name: str, dtype: DType, shape: tuple[int, ...]) -> Weight:
        count = int(np.prod(shape, dtype=object))
        if line.peek() == "[":
            numbers = line.numbers()
            if len(numbers) != count:
                line.fail(f"{count} numbers, not {len(numbers)}")
            return weight_of(_array(line, numbers, dtype).reshape(shape))
        kind = line.name("a list, sha256:..., zeros, ones or normal(seed)")
        if kind == "sha256":
            line.rest()
            if name not in self.given:
                line.fail(f"the content of weight {name!r}, which must be handed in")
            return self.given[name]
        if count > MAX_ELEMENTS or dtype is DType.STRING:
            line.fail(f"at most {MAX_ELEMENTS} elements, and no strings")
        if kind in ("zeros", "ones"):
            return weight_of(np.full(shape, kind == "ones", dtype.numpy))
        if kind != "normal":
            line.fail("zeros, ones or normal(seed)")
        line.expect("(")
        seed = line.integer("a seed")
        line.expect(")")
        return weight_of(np.random.default_rng(seed).standard_normal(shape).astype(dtype.numpy))

    def _uid(self) -> int:
        self.next_uid += 1
        return self.next_uid - 1


class _Line:
    """The tokens of one line, and where they stand."""

    def __init__(self, content: str, row: int) -> None:
        self.content, self.row, self.position = content, row, 0

    def fail(self, expected: str) -> NoReturn:
        raise InputError(f"text form, line {self.row}, column {self.position + 1}: expected {expected}")

    def _match(self) -> re.Match[str] | None:
        return _TOKEN.match(self.content, self.position)

    def peek(self) -> str:
        found = self._match()
        return found.group().strip() if found else ""

    def is_keyword(self) -> bool:
        """True when another word follows: `input x`, as opposed to a value that is called `input`."""
        first = self._match()
        following = _TOKEN.match(self.content, first.end()) if first else None
        return following is not None and following.group().strip() not in (":", ",", "=")

    def next(self) -> str:
        found = self._match()
        if found is None:
            self.fail("something")
        self.position = found.end()
        return found.group().strip()

    def expect(self, sign: str) -> None:
        if self.peek() != sign:
            self.fail(repr(sign))
        self.next()

    def end(self) -> None:
        if self.content[self.position :].strip():
            self.fail("the end of the line")

    def rest(self) -> None:
        self.position = len(self.content)

    def name(self, what: str) -> str:
        found = self._match()
        if found is None or not (found.group("name") or found.group("string")):
            self.fail(what)
        token = self.next()
        return str(self._json(token)) if token.startswith('"') else token

    def number(self) -> float:
        found = self._match()
        if found is not None and found.group("string"):
            text = str(self._json(self.next()))
            return float(text) if text in ("inf", "-inf", "nan") else self.fail("a number")
        if found is None or not found.group("number"):
            self.fail("a number")
        text = self.next()
        if len(text) > MAX_DIGITS:
            self.fail(f"a number of at most {MAX_DIGITS} characters")
        return int(text) if text.lstrip("-").isdigit() else float(text)

    def integer(self, what: str, high: int = 2**63 - 1) -> int:
        number = self.number()
        return number if isinstance(number, int) and 0 <= number <= high else self.fail(what)

    def numbers(self) -> list[float]:
        self.expect("[")
        found: list[float] = []
        while self.peek() != "]":
            found.append(self.number())
            if self.peek() == ",":
                self.next()
        self.expect("]")
        return found

    def opsets(self) -> dict[str, int]:
        parsed = self._json(self.content[self.position :])
        self.rest()
        if not isinstance(parsed, dict) or not all(type(v) is int and 0 < v < 1000 for v in parsed.values()):
            self.fail('operator sets as {"": 20}')
        return parsed

    def value(self) -> Value:
        name = self.name("a value name")
        self.expect(":")
        dtype: DType | None = None
        if self.peek() == "?":
            self.next()
        else:
            text = self.name("a type")
            if text not in DType._value2member_map_:
                self.fail("a type such as float32")
            dtype = DType(text)
        return Value(name, dtype, self._shape())

    def _shape(self) -> Shape | None:
        if self.peek() == "?":
            self.next()
            return None
        self.expect("[")
        dims: list[int | str] = []
        while self.peek() != "]":
            token = self._match()
            dims.append(self.integer("an extent") if token and token.group("number") else self.name("an extent"))
            if self.peek() == ",":
                self.next()
        self.expect("]")
        return tuple(dims)

    def inputs(self) -> list[str | None]:
        self.expect("(")
        found: list[str | None] = []
        while self.peek() != ")":
            token = self.peek()
            name = self.name("an input")
            found.append(None if token == "_" else name)
            if self.peek() == ",":
                self.next()
        self.expect(")")
        return found

    def attributes(self) -> list[AttributeProto]:
        self.expect("{")
        found: list[AttributeProto] = []
        while self.peek() != "}":
            name = self.name("an attribute")
            self.expect(":")
            found.append(self._attribute(name))
            if self.peek() == ",":
                self.next()
        self.expect("}")
        return found

    def _attribute(self, name: str) -> AttributeProto:
        if self.peek() == "proto":
            return self._proto(name)
        start = self._skip_space()
        try:
            value, end = json.JSONDecoder().raw_decode(self.content, start)
        except (ValueError, RecursionError):
            self.fail("an attribute value")
        self.position = end
        if not isinstance(value, int | float | str | list) or isinstance(value, bool):
            self.fail("a number, a text or a list of them")
        if value == []:
            return AttributeProto(name=name, type=AttributeProto.INTS)
        try:
            return helper.make_attribute(name, value)
        except (ValueError, TypeError, OverflowError):
            self.fail("an attribute value that ONNX can hold")

    def _proto(self, name: str) -> AttributeProto:
        self.next()
        self.expect("(")
        text = self.name("a quoted message")
        self.expect(")")
        try:
            proto = AttributeProto.FromString(base64.b64decode(text, validate=True))
            _check(proto)
        except (DecodeError, EncodeError, binascii.Error, ValueError):
            self.fail("an encoded attribute")
        if proto.name != name:
            proto.name = name
        return proto

    def _skip_space(self) -> int:
        while self.position < len(self.content) and self.content[self.position].isspace():
            self.position += 1
        return self.position

    def _json(self, text: str) -> Any:
        try:
            parsed = json.loads(text)
            json.dumps(parsed, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except (ValueError, RecursionError):
            self.fail("valid JSON")
        return parsed


def _array(line: _Line, numbers: list[float], dtype: DType) -> np.ndarray[Any, Any]:
    if dtype is DType.STRING:
        line.fail("sha256:...: strings are not listed")
    wide = np.array(numbers, np.float64 if dtype.is_float else object)  # int64 does not fit into a float
    try:
        return wide.astype(dtype.numpy)
    except (ValueError, OverflowError, TypeError):
        line.fail(f"numbers that {dtype} can hold")


def _check(proto: AttributeProto) -> None:
    """What the door for files looks at as well: depth, names, and tensors, which must not lie in other files."""
    holder = ModelProto(graph=GraphProto(node=[NodeProto(attribute=[proto])]))
    messages.check_names(holder)
    external.inline(messages.nested_tensors(holder), None, {})


def _skeleton(opsets: Mapping[str, int]) -> ModelProto:
    entries = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    proto = ModelProto(opset_import=entries, ir_version=10)
    with suppress(ValueError):  # a domain onnx does not know sets no bound
        proto.ir_version = max(10, helper.find_min_ir_version_for(entries))
    proto.graph.name = "graph"
    return proto
