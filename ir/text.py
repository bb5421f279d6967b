"""The text form of a model: the tree with one operator a line, for golden tests and `eopt inspect`.

    model {"": 20}
    input x: float32[batch, 8]
    weight w: float32[8, 4] = sha256:0c1f...
    encoder: Encoder {
      y: float32[batch, 4] = MatMul(x, w) {name: "/encoder/MatMul"}
    }
    output y: float32[batch, 4]

Values are `name: type[shape]`; names that are no identifiers are quoted as in JSON, `_` is an optional input left out.
Attributes are JSON; tensors are `tensor(float32[2], [1, 2])`, anything else is `proto("base64")`. Weights of at most
eight elements are printed in full, larger ones by digest. `eopt.ir.text_parse` reads it back.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import AttributeProto

from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op, Region
from eopt.ir.types import DType, Shape, Value

INLINE_ELEMENTS = 8
_UNLISTED = (DType.STRING, DType.COMPLEX64, DType.COMPLEX128)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.]*\Z")


def dumps(model: Model) -> str:
    """Print a model."""
    return "\n".join(_lines(model)) + "\n"


def _lines(model: Model) -> Iterator[str]:
    yield "model " + json.dumps(dict(sorted(model.opsets.items())))
    for value in model.inputs:
        yield f"input {format_value(value)}"
    for name in model.weights:
        dtype, shape = model.weights.dtype(name), model.weights.shape(name)
        yield f"weight {format_value(Value(name, dtype, shape))} = {_weight(model, name)}"
    yield from _children(model.root, 0)
    for value in model.outputs:
        yield f"output {format_value(value)}"


def _children(region: Region, depth: int) -> Iterator[str]:
    """Recursion is bounded: scopes are at most `scopes.MAX_DEPTH` deep."""
    indent = "  " * depth
    for child in region.children:
        if isinstance(child, Op):
            yield indent + format_op(child)
            continue
        head = format_name(child.name) + (f": {format_name(child.cls)}" if child.cls else "")
        yield f"{indent}{head} {{"
        yield from _children(child, depth + 1)
        yield indent + "}"


def format_op(op: Op) -> str:
    """One line for an operator."""
    outputs = ", ".join(format_value(value) for value in op.outputs)
    inputs = ", ".join(format_name(name) if name else "_" for name in op.inputs)
    kind = f"{op.domain}.{op.op}" if op.domain else op.op
    attributes = _attributes(op.attrs)
    if op.name:
        attributes.insert(0, f"name: {json.dumps(op.name)}")
    suffix = f" {{{', '.join(attributes)}}}" if attributes else ""
    return f"{outputs} = {format_name(kind)}({inputs}){suffix}"


def format_value(value: Value) -> str:
    """`x: float32[batch, 8]`; an unknown type or rank is `?`."""
    shape = "?" if value.shape is None else _shape(value.shape)
    return f"{format_name(value.id)}: {value.dtype or '?'}{shape}"


def _shape(shape: Shape) -> str:
    return "[" + ", ".join(str(dim) if isinstance(dim, int) else format_name(dim) for dim in shape) + "]"


def format_name(name: str) -> str:
    """A name as it is, or quoted."""
    return name if _PLAIN.match(name) else json.dumps(name)


def _weight(model: Model, name: str) -> str:
    dtype = model.weights.dtype(name)
    shown = dtype is not None and dtype.bits >= 8 and dtype not in _UNLISTED
    if shown and math.prod(model.weights.shape(name)) <= INLINE_ELEMENTS:
        return _numbers(model.weights.array(name))
    return f"sha256:{model.weights.digest(name)}"


def _numbers(array: np.ndarray[Any, Any]) -> str:
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        values = array.astype(np.float64 if array.dtype.kind in "fV" else np.int64).reshape(-1).tolist()
    return "[" + ", ".join(_number(value) for value in values) + "]"


def _number(value: float) -> str:
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else json.dumps(str(value))


def _attributes(attrs: Attrs) -> list[str]:
    return [f"{format_name(proto.name)}: {_attribute(proto, attrs)}" for proto in attrs.protos]


def _attribute(proto: AttributeProto, attrs: Attrs) -> str:
    if not proto.ref_attr_name and not proto.doc_string:
        if proto.type in (AttributeProto.INT, AttributeProto.INTS):
            return json.dumps(attrs[proto.name])
        if proto.type in (AttributeProto.FLOAT, AttributeProto.FLOATS) and _finite(attrs[proto.name]):
            return _floats(attrs[proto.name])
        if proto.type in (AttributeProto.STRING, AttributeProto.STRINGS) and _is_text(proto):
            return json.dumps(attrs[proto.name])
    return f'proto("{base64.b64encode(proto.SerializeToString(deterministic=True)).decode()}")'


def _finite(value: float | tuple[float, ...]) -> bool:
    return all(math.isfinite(item) for item in (value if isinstance(value, tuple) else (value,)))


def _floats(value: float | tuple[float, ...]) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _is_text(proto: AttributeProto) -> bool:
    try:
        for item in (proto.s, *proto.strings):
            item.decode()
    except UnicodeDecodeError:
        return False
    return True
