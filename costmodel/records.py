"""From a cost query, or a row of measurements, to the kernels it asks about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from eopt.costmodel import experts
from eopt.costmodel.features import gemm_shape, sharing
from eopt.costmodel.query import Kernel, Unknown
from eopt.costmodel.results import broadcast, result_shapes
from eopt.costmodel.training import backward
from eopt.ir.errors import EoptError, InputError, UsageError
from eopt.ir.node import Attrs
from eopt.ir.ops import OpView, Tensor, Unit, Work, spec
from eopt.ir.opset import elementwise, norm
from eopt.ir.opset.shared import SOFTMAX
from eopt.ir.types import DType

Shapes = tuple[tuple[int, ...] | None, ...]
MAX_EXTENT, MAX_RANK, MAX_ELEMENTS = 1 << 40, 16, 1 << 60
COLLECTIVES = ("AllReduce", "AllGather", "ReduceScatter", "SendRecv")
PHASES = ("forward", "backward", "training")
MATHS = ("", "ieee", "tf32")
SCALES = ("", "tensor", "channel", "block", "nvfp4", "mx")
# Operands that hold weights (keys and values, of attention), by operator.
_WEIGHTS = {"MatMul": (1,), "Gemm": (1,), "Conv": (1,), "Attention": (1, 2), "MoE": (2, 4, 6), "Gather": (0,)}
_INDICES = {
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "ScatterND": (1,),
    "Reshape": (1,),
    "Expand": (1,),
}
# Bytes of scales for each byte of numbers: a float8 for 16 float4, a float8 for 32 (OCP MX), float32 for 128 float8.
_SCALE_BYTES = {"nvfp4": 1 / 8, "mx": 1 / 16, "block": 4 / 128}
_OWN_ATTRIBUTES = ("past", "window", "ep", "skew", "unit", "ranks", "to")
_BADLY_MADE = (
    IndexError, ZeroDivisionError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
# Operators over rows along an axis that keep the shape: operations per element, for the short way.
_SOFTMAXES = {"Softmax": SOFTMAX, "LogSoftmax": SOFTMAX}
_NORMS = {name: norm.PER_ELEMENT[name] for name in ("LayerNormalization", "RMSNormalization")}
_INTEGERS = frozenset({int})  # of which bool is none here
_EXACT = 1 << 53  # integers below are floats without rounding


class _Format(NamedTuple):
    """How numbers are held: `wide` is the type of results, as products of narrow floats leave wider."""

    dtype: DType
    weight: DType | None
    wide: DType
    math: str
    scale: str

    def of(self, name: str, place: int) -> DType:
        """Type of an operand."""
        if place in _INDICES.get(name, ()):
            return DType.INT64
        return self.weight if self.weight is not None and place in _WEIGHTS.get(name, ()) else self.dtype


@lru_cache(maxsize=1 << 18)
def kernels_of(
    op: str,
    inputs: Shapes,
    dtype: str,
    weight_dtype: str = "",
    math: str = "",
    scale: str = "",
    attrs: str = "",
    phase: str = "forward",
) -> tuple[Kernel, ...] | Unknown:
    """The kernels one execution of an operator runs: one forward; two for the backward pass of a product.

    Args:
        attrs: a JSON object.

    Raises:
        InputError: shapes that do not fit the operator, an unknown dtype, phase, math or scale.
    """
    numbers = _format(dtype, weight_dtype, math, scale)
    if phase not in PHASES:
        raise InputError(f"phase {phase!r}: choose from {', '.join(PHASES)}")
    try:
        kernel = _short(op, inputs, numbers, attrs) or _long(op, inputs, numbers, attrs)
    except _BADLY_MADE as error:
        raise InputError(f"{op}: operands or attributes make no sense ({error})") from None
    if isinstance(kernel, Unknown):
        return kernel
    if phase == "forward":
        return (kernel,)
    behind = backward(kernel)
    return behind if phase == "backward" else (kernel, *behind)


def record(row: Mapping[str, Any]) -> tuple[Kernel, ...] | Unknown:
    """As `kernels_of`, from a query object.

    Raises:
        InputError: a field is missing, or of another kind than the contract says.
    """
    op, inputs, dtype = row.get("op"), row.get("inputs"), row.get("dtype")
    if not isinstance(op, str) or not isinstance(dtype, str) or not isinstance(inputs, list):
        raise InputError("a query needs op, inputs and dtype")
    weight, math, scale = row.get("weight_dtype") or "", row.get("math") or "", row.get("scale") or ""
    phase, attrs = row.get("phase") or "forward", row.get("attrs")
    if not (isinstance(weight, str) and isinstance(math, str) and isinstance(scale, str) and isinstance(phase, str)):
        raise InputError("weight_dtype, math, scale and phase are texts")
    if attrs is not None and not isinstance(attrs, dict):
        raise InputError("attrs must be an object")
    return kernels_of(op, shapes_of(inputs), dtype, weight, math, scale, _encoded(attrs) if attrs else "", phase)


def _encoded(attrs: dict[str, Any]) -> str:
    try:
        return json.dumps(attrs, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"attrs: no JSON ({error})") from None


def row_kernels(op: str, inputs: Any, *texts: Any) -> tuple[Kernel, ...]:
    """As `kernels_of`, from the columns of a table in its order, nulls as ''; () where there is nothing to say."""
    try:
        shapes = shapes_of([None if shape is None else [int(dim) for dim in shape] for shape in inputs])
        found = kernels_of(op, shapes, *(text if isinstance(text, str) else "" for text in texts))
    except EoptError:
        return ()
    return () if isinstance(found, Unknown) else found


def shapes_of(inputs: Sequence[Any]) -> Shapes:
    """Checked extents; an empty list is a scalar, null an operand that is left out.

    Raises:
        InputError: something else.
    """
    return tuple([None if shape is None else _shape(shape) for shape in inputs])


def _shape(shape: Any) -> tuple[int, ...]:
    sound = isinstance(shape, list | tuple) and _INTEGERS.issuperset(map(type, shape)) and len(shape) <= MAX_RANK
    if not sound or (shape and not 0 <= min(shape) <= max(shape) < MAX_EXTENT):
        raise InputError(f"inputs: {str(shape)[:60]} is no list of extents")
    return tuple(shape)


@lru_cache(maxsize=1 << 10)
def _format(dtype: str, weight: str, math: str, scale: str) -> _Format:
    kind = scale.partition(":")[0]
    for name, value, known in (("math", math, MATHS), ("scale", kind, SCALES)):
        if value not in known:
            raise InputError(f"{name} {value!r}: choose from {', '.join(filter(None, known))}")
    held = _dtype(dtype)
    wide = held if held.bits >= 16 or not held.is_float else DType.BFLOAT16
    return _Format(held, _dtype(weight) if weight else None, wide, math, kind)


def _dtype(text: str) -> DType:
    try:
        return DType.parse(text)
    except UsageError as error:
        raise InputError(str(error)) from None


@lru_cache(maxsize=1 << 12)
def _attributes(name: str, text: str) -> tuple[Mapping[str, Any], Attrs]:
    """What the query says, and what ONNX calls it."""
    given = json.loads(text) if text else {}
    onnx = dict(given)
    if given.get("window"):
        onnx["left_window_size"] = int(given["window"]) - 1
    if name == "MoE":
        onnx = {"swiglu_fusion": 1, "activation_type": "swiglu", **onnx}
    return given, Attrs.of(**{key: value for key, value in onnx.items() if key not in _OWN_ATTRIBUTES})


def _short(op: str, inputs: Shapes, numbers: _Format, attrs: str) -> Kernel | None:
    """The kernel of operators that are asked often, without their specification; None where that has to be asked.

    What is returned equals what `_long` returns; a property test holds them together.
    """
    if not inputs or None in inputs or (attrs and op not in elementwise.PER_ELEMENT and op != "Gemm"):
        return None
    shapes: Sequence[tuple[int, ...]] = inputs  # type: ignore[assignment]
    if op in ("MatMul", "Gemm"):
        return _short_product(op, shapes, numbers, attrs)
    per_element, kind = elementwise.PER_ELEMENT.get(op) or _SOFTMAXES.get(op), numbers.dtype
    if op in _NORMS:
        per_element, kind = _NORMS[op], numbers.wide
    if per_element is None or not shapes[0] or (op == "Where" and len(shapes) < 2):
        return None
    _attributes(op, attrs)  # refuses what ONNX would
    result = broadcast(shapes) if op in elementwise.PER_ELEMENT else shapes[0]
    elements, counts = prod(result), [prod(shape) for shape in shapes]
    if not elements or max(elements, *counts) >= _EXACT // 32:
        return None
    read = sum([count * numbers.dtype.bits / 8 for count in counts])
    return _made(op, (Unit.VECTOR, kind, float(per_element * elements)), read, 0.0, None, elements, shapes[0], numbers)


def _short_product(op: str, shapes: Sequence[tuple[int, ...]], numbers: _Format, attrs: str) -> Kernel | None:
    if len(shapes) < 2 or len(shapes[0]) < 2 or len(shapes[1]) < 2:
        return None
    a, b = shapes[0], shapes[1]
    left, right = a, b
    if op == "Gemm":
        given = _attributes(op, attrs)[1]
        left = a[::-1] if given.get("transA", 0) else a
        right = b[::-1] if given.get("transB", 0) else b
    stacked = len(b) > 2
    if left[-1] != right[-2] or (stacked and a[:-2] != b[:-2]) or (op == "Gemm" and len(a) + len(b) > 4):
        return None
    k, n = right[-2:]
    elements = prod(left[:-1]) * n
    flops = 2.0 * elements * k
    if not 0 < flops < _EXACT:
        return None
    sizes = [prod(shape) * numbers.of(op, place).bits / 8 for place, shape in enumerate(shapes)]
    problem = (prod(left[:-2]), left[-2], n, k) if stacked else (1, elements // n, n, k)
    return _made(op, (Unit.MATRIX, numbers.dtype, flops), sum(sizes), sizes[1], problem, elements, a, numbers)


def _made(
    op: str,
    work: tuple[Unit, DType, float],
    read: float,
    weights: float,
    gemm: tuple[int, int, int, int] | None,
    elements: int,
    first: tuple[int, ...],
    numbers: _Format,
) -> Kernel:
    extra = 1 + _SCALE_BYTES.get(numbers.scale, 0.0)
    narrow = numbers.weight if gemm and numbers.weight and numbers.weight.bits < numbers.dtype.bits else None
    return Kernel(
        op,
        (work,),
        (read - weights) * extra + elements * numbers.wide.bits / 8,
        weights * extra,
        gemm,
        elements,
        numbers.scale,
        numbers.math,
        first[-1],
        narrow.bits if narrow else 0,
    )


def _long(op: str, inputs: Shapes, numbers: _Format, attrs: str) -> Kernel | Unknown:
    """The kernel of any operator, from its specification."""
    domain, _, name = op.rpartition(".")
    if name in COLLECTIVES:
        return Unknown((f"{op}: collectives are not priced by this release",))
    if spec(name, domain) is None:
        return Unknown((f"{op} has no operator specification",))
    given, onnx = _attributes(name, attrs)
    kernel = _kernel(_view(name, domain, inputs, numbers, given, onnx), numbers, given)
    if max(kernel.elements, *(prod(shape) for shape in inputs if shape is not None)) >= MAX_ELEMENTS:
        raise InputError(f"{op}: more than 2^60 elements; no memory holds them")
    return kernel


def _view(name: str, domain: str, inputs: Shapes, numbers: _Format, given: Mapping[str, Any], onnx: Attrs) -> OpView:
    shapes = list(inputs)
    if name == "Attention":
        _with_past(shapes, int(given.get("past", 0)))
    tensors = tuple(
        None if shape is None else Tensor(shape, numbers.of(name, place)) for place, shape in enumerate(shapes)
    )
    if not tensors or tensors[0] is None:
        raise InputError(f"{name}: its first operand is missing")
    results = result_shapes(name, domain, tensors, onnx)
    return OpView(name, domain, tensors, tuple(Tensor(shape, numbers.wide) for shape in results), onnx)


def _with_past(shapes: list[tuple[int, ...] | None], past: int) -> None:
    """Keys and values may be given with the cache or without it."""
    query, key = shapes[0], shapes[1] if len(shapes) > 1 else None
    if not past or query is None or key is None or len(key) < 3 or key[-2] >= query[-2] + past:
        return
    for place in (1, 2):
        shape = shapes[place] if len(shapes) > place else None
        shapes[place] = None if shape is None else (*shape[:-2], shape[-2] + past, shape[-1])


def _kernel(view: OpView, numbers: _Format, given: Mapping[str, Any]) -> Kernel:
    described = spec(view.op, view.domain)
    assert described is not None
    work = described.work(view)
    read, weights = work.read_bytes, 0.0
    tensors = [(place, tensor) for place, tensor in enumerate(view.inputs) if tensor]
    if work.unit is Unit.MATRIX:
        weights = sum(tensor.nbytes for place, tensor in tensors if place in _WEIGHTS.get(view.op, ()))
        weights = min(weights, read)
    if view.op == "MoE":
        work, weights = _of_rank(view, work, given)
        read = work.read_bytes
    if view.op == "Attention":
        weights = 0.0
        read -= (1 - _touched(view, given) / max(1, view.input(1).shape[-2])) * _cached(view)
    extra = 1 + _SCALE_BYTES.get(numbers.scale, 0.0)
    name = f"{view.domain}.{view.op}" if view.domain else view.op
    matrix = work.unit is Unit.MATRIX
    flops = ((work.unit, work.dtype, work.flops),) if work.flops else ()
    elements = max((tensor.numel for tensor in view.outputs), default=1)
    found, row = _problem(view, given) if matrix else None, (view.input(0).shape or (1,))[-1]
    gemm = found if found and all(found) else None  # nothing is multiplied where an extent is 0
    traffic = (read - weights) * extra + work.write_bytes, weights * extra
    bits = _weight_bits(view)
    return Kernel(name, flops, *traffic, gemm, elements, numbers.scale, numbers.math, row, bits, sharing(view))


def _weight_bits(view: OpView) -> int:
    """Of the first operand that holds weights, keys or values, if narrower than the arithmetic."""
    places = _WEIGHTS.get(view.op, ())
    held = view.optional(places[0]) if places and view.op != "Gather" else None
    return held.dtype.bits if held is not None and held.dtype.bits < view.input(0).dtype.bits else 0


def _touched(view: OpView, given: Mapping[str, Any]) -> int:
    """Keys inside of the window of any query."""
    keys, window = view.input(1).shape[-2], int(given.get("window", 0))
    return min(keys, window + view.input(0).shape[-2]) if window else keys


def _cached(view: OpView) -> float:
    """Bytes of keys and values."""
    return sum(tensor.nbytes for tensor in view.inputs[1:3] if tensor)


def _problem(view: OpView, given: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """Batch, m, n, k; of experts, those that are met and the tokens each gets."""
    if view.op != "MoE":
        found = gemm_shape(view)
        packed = view.op == "Attention" and len(view.input(0).shape) == 4
        return (found[0], found[1], _touched(view, given), found[3]) if found and packed else found
    first, load = view.input(2), _load(view, given)
    return load.met, max(1, load.rows // load.met), first.shape[1], first.shape[2]


def _load(view: OpView, given: Mapping[str, Any]) -> experts.Load:
    """Of the rank that holds the weights, of as many experts as the router scores."""
    tokens, scored, local = prod(view.input(0).shape[:-1]), view.input(1).shape[-1], view.input(2).shape[0]
    return experts.load(tokens, int(view.attrs.get("k", 1)), max(scored, local), local, str(given.get("skew") or ""))


def _of_rank(view: OpView, work: Work, given: Mapping[str, Any]) -> tuple[Work, float]:
    """The specification knows of no other rank and no skew; the work of this one, and the bytes of its weights."""
    load, held = _load(view, given), view.input(2).shape[0]
    pairs = prod(view.input(0).shape[:-1]) * int(view.attrs.get("k", 1))
    all_weights = sum(tensor.nbytes for place in _WEIGHTS["MoE"] if (tensor := view.optional(place)))
    weights = load.met / held * all_weights
    others = work.read_bytes - min(1.0, pairs / held) * all_weights
    return replace(work, flops=work.flops * load.rows / pairs, read_bytes=others + weights), weights
