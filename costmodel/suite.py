"""Operators to calibrate with: small graphs like those that models are made of, drawn over the extents models have.

Each is written as ONNX text, so that what is measured can be read. Extents are drawn evenly in the logarithm from
those of common vision and language models; what would take too long on a slow executor is not drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper, numpy_helper, parser

from eopt.ir.model import Model
from eopt.ir.onnx_io import from_proto

Rng = np.random.Generator
OPSET = 20
ROWS = (1, 1, 8, 16, 32, 64, 128, 128, 197, 256, 256, 512, 512, 1024, 2048, 4096)
BATCHES = (1, 1, 1, 1, 2, 4, 8, 16)
WIDTHS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072)
CHANNELS = (3, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
PIXELS = (4, 7, 8, 14, 16, 28, 32, 56, 112)
HEADS = (1, 4, 6, 8, 12, 16, 24)
LENGTHS = (16, 32, 64, 128, 197, 256)
HEAD_WIDTHS = (32, 64)
MAX_FLOPS, MAX_ELEMENTS = 1e9, 1e7


@dataclass(frozen=True)
class Candidate:
    """A small graph, given by its text.

    Attributes:
        kind: of which template it is.
        text: ONNX text; `weights` names those of its inputs that are weights.
    """

    kind: str
    text: str
    weights: tuple[str, ...]

    def model(self) -> Model:
        """The graph as a model, weights drawn with a fixed seed."""
        proto = parser.parse_model(self.text)
        fixed = [info for info in proto.graph.input if info.name in self.weights]
        rng = np.random.default_rng(0)
        for info in fixed:
            tensor = info.type.tensor_type
            shape = [dim.dim_value for dim in tensor.shape.dim]
            array = (rng.standard_normal(shape) * 0.1).astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            proto.graph.initializer.append(numpy_helper.from_array(array, info.name))
            proto.graph.input.remove(info)
        return from_proto(proto)


def draw(count: int, seed: int, dtypes: Sequence[str] = ("float",)) -> list[Candidate]:
    """So many different candidates, every template as often as it weighs.

    Args:
        dtypes: of activations and weights, as ONNX text spells them; drawn evenly.
    """
    rng = np.random.default_rng(seed)
    names, shares = list(TEMPLATES), np.array([share for share, _ in TEMPLATES.values()], dtype=float)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        kind = names[rng.choice(len(names), p=shares / shares.sum())]
        candidate = TEMPLATES[kind][1](rng)
        if candidate is not None:
            weights, text = candidate
            text = text.replace("float[", f"{_pick(rng, dtypes)}[")
            found.setdefault(text, Candidate(kind, text, weights))
    return list(found.values())


Drawn = tuple[tuple[str, ...], str] | None


def _graph(inputs: Mapping[str, Sequence[int]], output: Sequence[int], body: str, weights: Sequence[str] = ()) -> Drawn:
    if max(np.prod(shape, dtype=float) for shape in (*inputs.values(), output)) > MAX_ELEMENTS:
        return None
    declared = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in inputs.items())
    header = f'<ir_version: 10, opset_import: ["": {OPSET}]>'
    return tuple(weights), f"{header} g ({declared}) => (float[{','.join(map(str, output))}] y) {{ {body} }}"


def _pick(rng: Rng, values: Sequence[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def _linear(after: str) -> Callable[[Rng], Drawn]:
    """x W + b, and what comes behind."""

    def drawn(rng: Rng) -> Drawn:
        m, k, n = _pick(rng, ROWS), _pick(rng, WIDTHS), _pick(rng, WIDTHS)
        if 2 * m * k * n > MAX_FLOPS:
            return None
        inputs = {"x": (1, m, k), "w": (k, n), "b": (n,)}
        if not after:
            return _graph({name: inputs[name] for name in "xw"}, (1, m, n), "y = MatMul(x, w)", ("w",))
        bias = f"p = MatMul(x, w) s = Add(p, b) y = {after}(s)" if after != "Add" else "p = MatMul(x, w) y = Add(p, b)"
        return _graph(inputs, (1, m, n), bias, ("w", "b"))

    return drawn


def _gemm(rng: Rng) -> Drawn:
    m, k, n = _pick(rng, ROWS), _pick(rng, WIDTHS), _pick(rng, (10, 100, 1000, *WIDTHS))
    if 2 * m * k * n > MAX_FLOPS:
        return None
    return _graph({"x": (m, k), "w": (n, k), "b": (n,)}, (m, n), "y = Gemm<transB = 1>(x, w, b)", ("w", "b"))


def _batched(rng: Rng) -> Drawn:
    """Scores of attention, or what they weigh."""
    n, h, s, d = _heads(rng)
    if 2 * n * h * s * s * d > MAX_FLOPS:
        return None
    if rng.integers(2):
        return _graph({"a": (n, h, s, d), "b": (n, h, d, s)}, (n, h, s, s), "y = MatMul(a, b)")
    return _graph({"a": (n, h, s, s), "b": (n, h, s, d)}, (n, h, s, d), "y = MatMul(a, b)")


def _attention(rng: Rng) -> Drawn:
    n, h, s, d = _heads(rng)
    if 4 * n * h * s * s * d > MAX_FLOPS or n * h * s * s > MAX_ELEMENTS:
        return None
    inputs = {"q": (n, h, s, d), "k": (n, h, d, s), "v": (n, h, s, d), "c": (1,)}
    if rng.integers(2):
        return _graph(inputs, (n, h, s, d), "p = MatMul(q, k) s = Mul(p, c) w = Softmax(s) y = MatMul(w, v)", ("c",))
    plain = {name: inputs[name] for name in "qkv"}
    return _graph(plain, (n, h, s, d), "p = MatMul(q, k) w = Softmax(p) y = MatMul(w, v)")


def _heads(rng: Rng) -> tuple[int, int, int, int]:
    """Sequences, heads, tokens, and the width of a head."""
    return _pick(rng, BATCHES), _pick(rng, HEADS), _pick(rng, LENGTHS), _pick(rng, HEAD_WIDTHS)


def _conv(after: str) -> Callable[[Rng], Drawn]:
    def drawn(rng: Rng) -> Drawn:
        n, c, o, h = _pick(rng, BATCHES), _pick(rng, CHANNELS), _pick(rng, CHANNELS[1:]), _pick(rng, PIXELS)
        kernel, stride = _pick(rng, (1, 1, 1, 3, 3, 3, 5, 7)), _pick(rng, (1, 1, 1, 2))
        out = (h - 1) // stride + 1
        if 2 * n * out * out * o * c * kernel * kernel > MAX_FLOPS or kernel > h:
            return None
        inputs = {"x": (n, c, h, h), "w": (o, c, kernel, kernel), "b": (o,), "r": (n, o, out, out)}
        conv = f"Conv<{_window(kernel, stride)}>(x, w, b)"
        names = "xwbr" if "r)" in after else "xwb"
        body = f"c = {conv} {after}" if after else f"y = {conv}"
        return _graph({name: inputs[name] for name in names}, (n, o, out, out), body, ("w", "b"))

    return drawn


def _depthwise(rng: Rng) -> Drawn:
    n, c, h = _pick(rng, BATCHES), _pick(rng, CHANNELS[1:]), _pick(rng, PIXELS)
    kernel, stride = _pick(rng, (3, 3, 5)), _pick(rng, (1, 1, 2))
    out = (h - 1) // stride + 1
    if kernel > h:
        return None
    inputs = {"x": (n, c, h, h), "w": (c, 1, kernel, kernel), "b": (c,)}
    body = f"y = Conv<{_window(kernel, stride)}, group = {c}>(x, w, b)"
    return _graph(inputs, (n, c, out, out), body, ("w", "b"))


def _window(kernel: int, stride: int) -> str:
    """Attributes of a square kernel that keeps the image's size but for the stride."""
    return f"pads = {[kernel // 2] * 4}, strides = {[stride, stride]}, kernel_shape = {[kernel, kernel]}"


def _rows(rng: Rng) -> tuple[int, ...]:
    """Tokens by features, heads by scores, or an image."""
    form = rng.integers(3)
    if form == 0:
        return 1, _pick(rng, ROWS), _pick(rng, WIDTHS)
    if form == 1:
        length = _pick(rng, LENGTHS)
        return _pick(rng, BATCHES), _pick(rng, HEADS), length, length
    pixels = _pick(rng, PIXELS)
    return _pick(rng, BATCHES), _pick(rng, CHANNELS), pixels, pixels


def _softmax(rng: Rng) -> Drawn:
    shape = _rows(rng)
    return _graph({"x": shape}, shape, "y = Softmax<axis = -1>(x)")


def _norm(residual: bool) -> Callable[[Rng], Drawn]:
    def drawn(rng: Rng) -> Drawn:
        shape = (1, _pick(rng, ROWS), _pick(rng, WIDTHS))
        inputs = {"x": shape, "r": shape, "g": shape[-1:], "b": shape[-1:]}
        if residual:
            return _graph(inputs, shape, "s = Add(x, r) y = LayerNormalization<axis = -1>(s, g, b)", ("g", "b"))
        plain = {name: inputs[name] for name in "xgb"}
        return _graph(plain, shape, "y = LayerNormalization<axis = -1>(x, g, b)", ("g", "b"))

    return drawn


def _unary(rng: Rng) -> Drawn:
    op, shape = _pick(rng, ("Relu", "Gelu", "Sigmoid", "Tanh", "Erf", "Exp", "Sqrt", "Neg", "HardSwish")), _rows(rng)
    return _graph({"x": shape}, shape, f"y = {op}(x)")


def _binary(rng: Rng) -> Drawn:
    op, shape = _pick(rng, ("Add", "Mul", "Sub", "Div")), _rows(rng)
    other = shape if rng.integers(2) else shape[-1:]
    return _graph({"a": shape, "b": other}, shape, f"y = {op}(a, b)")


def _where(rng: Rng) -> Drawn:
    """A mask over scores: of the same shape, or the same for all heads."""
    n, h, s, _ = _heads(rng)
    drawn = _graph({"a": (n, h, s, s), "b": (1,)}, (n, h, s, s), "y = Where(m, a, b)", ("b",))
    if drawn is None:
        return None
    weights, text = drawn
    return weights, text.replace("g (", f"g (bool[{n},{_pick(rng, (1, h))},{s},{s}] m, ", 1)


def _pool(rng: Rng) -> Drawn:
    n, c, h = _pick(rng, BATCHES), _pick(rng, CHANNELS), _pick(rng, PIXELS)
    if rng.integers(2):
        return _graph({"x": (n, c, h, h)}, (n, c, 1, 1), "y = GlobalAveragePool(x)")
    out = (h - 1) // 2 + 1
    op = _pick(rng, ("MaxPool", "AveragePool"))
    body = f"y = {op}<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)"
    return _graph({"x": (n, c, h, h)}, (n, c, out, out), body)


def _reduce(rng: Rng) -> Drawn:
    shape, op = _rows(rng), _pick(rng, ("ReduceMean", "ReduceSum", "ReduceMax"))
    body = f"axes = Constant<value = int64[1] {{-1}}>() y = {op}<keepdims = 1>(x, axes)"
    return _graph({"x": shape}, (*shape[:-1], 1), body)


def _transpose(rng: Rng) -> Drawn:
    """Heads before tokens, that with tokens last, or an image to tokens."""
    n, h, s, d = _heads(rng)
    form = rng.integers(3)
    if form == 0:
        return _graph({"x": (n, s, h, d)}, (n, h, s, d), "y = Transpose<perm = [0, 2, 1, 3]>(x)")
    if form == 1:
        return _graph({"x": (n, s, h, d)}, (n, h, d, s), "y = Transpose<perm = [0, 2, 3, 1]>(x)")
    return _graph({"x": (n, h * d, s)}, (n, s, h * d), "y = Transpose<perm = [0, 2, 1]>(x)")


def _split(rng: Rng) -> Drawn:
    """Queries of one product for queries, keys and values."""
    n, w = _pick(rng, ROWS), _pick(rng, WIDTHS)
    body = "begin = Constant<value = int64[1] {0}>() axis = Constant<value = int64[1] {2}>() "
    body += f"end = Constant<value = int64[1] {{{w}}}>() y = Slice(x, begin, end, axis)"
    return _graph({"x": (1, n, 3 * w)}, (1, n, w), body)


def _concat(rng: Rng) -> Drawn:
    n, w = _pick(rng, ROWS), _pick(rng, WIDTHS)
    return _graph({"a": (1, n, w), "b": (1, n, w)}, (1, 2 * n, w), "y = Concat<axis = 1>(a, b)")


def _gather(rng: Rng) -> Drawn:
    rows, width, count = _pick(rng, (512, 1000, 4000)), _pick(rng, WIDTHS[:8]), _pick(rng, ROWS)
    drawn = _graph({"w": (rows, width)}, (1, count, width), "y = Gather(w, i)", ("w",))
    if drawn is None:
        return None
    weights, text = drawn
    return weights, text.replace("g (", f"g (int64[1,{count}] i, ", 1)


TEMPLATES: dict[str, tuple[int, Callable[[Rng], Drawn]]] = {
    "linear": (10, _linear("")),
    "linear, bias": (8, _linear("Add")),
    "linear, bias, Relu": (4, _linear("Relu")),
    "linear, bias, Gelu": (6, _linear("Gelu")),
    "Gemm": (8, _gemm),
    "batched product": (8, _batched),
    "attention": (6, _attention),
    "Conv": (10, _conv("")),
    "Conv, Relu": (14, _conv("y = Relu(c)")),
    "Conv, Add, Relu": (8, _conv("s = Add(c, r) y = Relu(s)")),
    "depthwise Conv": (6, _depthwise),
    "Softmax": (6, _softmax),
    "LayerNormalization": (6, _norm(False)),
    "Add, LayerNormalization": (4, _norm(True)),
    "unary": (10, _unary),
    "binary": (8, _binary),
    "Where": (2, _where),
    "pool": (6, _pool),
    "reduce": (4, _reduce),
    "Transpose": (6, _transpose),
    "Slice": (3, _split),
    "Concat": (2, _concat),
    "Gather": (2, _gather),
}
"""By name of a template, how often it is drawn, and how."""
