"""Shapes of an operator's results, from those of its operands: rules for what is asked often, onnx for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import helper, shape_inference

from eopt.ir.errors import InputError
from eopt.ir.node import Attrs
from eopt.ir.ops import Tensor, Trait, spec

OPSET = 25
Shape = tuple[int, ...]


def result_shapes(op: str, domain: str, inputs: Sequence[Tensor | None], attrs: Attrs) -> tuple[Shape, ...]:
    """Extents of every result.

    Raises:
        InputError: the shapes do not fit the operator.
    """
    first = inputs[0]
    assert first is not None
    shapes = [tensor.shape for tensor in inputs if tensor]
    try:
        if op == "MatMul":
            return (_matmul(*shapes[:2]),)
        if op == "Gemm":
            return (_gemm(shapes[0], shapes[1], attrs),)
        if op == "Conv" and attrs.get("auto_pad", "NOTSET") == "NOTSET":
            return (_conv(shapes[0], shapes[1], attrs),)
        if op == "Attention":
            return (_attention(*shapes[:3]),)
        if op in ("Softmax", "LogSoftmax", "MoE", "RotaryEmbedding") or op.endswith("Normalization"):
            return (first.shape,)
        described = spec(op, domain)
        if described is not None and Trait.ELEMENTWISE in described.traits:
            return (broadcast(shapes),)
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{op}: its operands {[list(shape) for shape in shapes]} do not fit ({error})") from None
    return _inferred(op, domain, inputs, attrs)


def _matmul(a: Shape, b: Shape) -> Shape:
    if len(a) < 1 or len(b) < 1 or a[-1] != b[-2 if len(b) > 1 else 0]:
        raise ValueError("the inner extents differ")
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return (*broadcast([a[:-2], b[:-2]]), *rows, *columns)


def _gemm(a: Shape, b: Shape, attrs: Attrs) -> Shape:
    if len(a) != 2 or len(b) != 2:
        raise ValueError("both must be matrices")
    m, k = a[::-1] if attrs.get("transA", 0) else a
    inner, n = b[::-1] if attrs.get("transB", 0) else b
    if inner != k:
        raise ValueError("the inner extents differ")
    return m, n


def _conv(x: Shape, weight: Shape, attrs: Attrs) -> Shape:
    rank, group = len(x) - 2, attrs.get("group", 1)
    if not isinstance(group, int) or rank < 1 or len(weight) != rank + 2 or x[1] != weight[1] * group:
        raise ValueError("channels or ranks differ")
    strides, dilations = attrs.get("strides", (1,) * rank), attrs.get("dilations", (1,) * rank)
    pads = attrs.get("pads", (0,) * (2 * rank))
    spatial = [
        (x[axis + 2] + pads[axis] + pads[axis + rank] - dilations[axis] * (weight[axis + 2] - 1) - 1) // strides[axis]
        + 1
        for axis in range(rank)
    ]
    if min(spatial) < 1:
        raise ValueError("the window is larger than the input")
    return (x[0], weight[0], *spatial)


def _attention(query: Shape, key: Shape, value: Shape) -> Shape:
    if len(query) != len(key) or len(query) not in (3, 4) or query[0] != key[0]:
        raise ValueError("queries and keys differ in rank or batch")
    if len(query) == 4 and (not key[1] or query[1] % key[1] or query[3] != key[3]):
        raise ValueError("heads or their sizes differ")
    return (*query[:-1], value[-1] if len(query) == 4 else query[-1])


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape operands of these shapes have together.

    Raises:
        ValueError: they do not broadcast.
    """
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result = tuple(max(column) if 0 not in column else 0 for column in zip(*padded, strict=True))
    if any(dim not in (1, wide) for shape in padded for dim, wide in zip(shape, result, strict=True)):
        raise ValueError("they do not broadcast")
    return result


def _inferred(op: str, domain: str, inputs: Sequence[Tensor | None], attrs: Attrs) -> tuple[Shape, ...]:
    names = [f"x{place}" if tensor else "" for place, tensor in enumerate(inputs)]
    node = helper.make_node(op, names, ["y"], domain=domain)
    node.attribute.extend(attrs.protos)
    given = [helper.make_tensor_value_info(f"x{p}", t.dtype.onnx, t.shape) for p, t in enumerate(inputs) if t]
    graph = helper.make_graph([node], "query", given, [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(domain, 1)] if domain else [])]
    try:
        model = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets), strict_mode=True)
    except Exception as error:  # onnx raises many types
        raise InputError(f"{op}: its operands do not fit ({str(error).strip().splitlines()[-1][:120]})") from None
    found = model.graph.output[0].type.tensor_type
    dims = tuple(dim.dim_value for dim in found.shape.dim)
    if not found.HasField("shape") or not all(dim.HasField("dim_value") for dim in found.shape.dim):
        raise InputError(f"{op}: the extents of its result depend on values; a query cannot say them")
    return (dims,)
