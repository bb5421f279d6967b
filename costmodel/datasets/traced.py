"""Operator lists of architectures that were measured whole: traced on meta tensors, extents put in afterwards.

A configuration is traced once, with primes for the extents that measurements vary: every extent that holds one as a
factor follows when another value takes its place. So a model costs one trace, whatever the batches it was measured at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets.base import attrs_text
from eopt.ir.ops import Trait, spec

if TYPE_CHECKING:
    import pandas as pd

    from eopt.ir.model import Model
    from eopt.ir.node import Op
    from eopt.ir.types import Value

_KEY = ("workload", "dtype", "weight_dtype", "library", "batch", "attrs")
BATCH, KEYS = 10007, 20011
"""Traced extents: samples or sequences, and keys a decoding step looks at (the cache and the new token)."""
MISSING = "no operator lists were traced: pip install 'eopt[hf]'"
STAND_IN = "Neg"  # for what a query cannot say: it reads and writes the largest operand once
_STRIDED = ("Transpose", "Slice", "Split", "Expand", "Identity", "Reshape", "ConstantOfShape")
_UNSAID = ("ReduceMean", "ReduceSum", "TopK", "GatherElements", "ScatterElements", "TensorScatter", "Concat", "Where")
_PRODUCTS = ("MatMul", "Gemm", "Conv", "Attention")
_WIDE = ("LayerNormalization", "Softmax", "Pow", "Reciprocal", "Exp", "Log", "ReduceSum")
"""What torch's autocast computes in float32 (https://docs.pytorch.org/docs/stable/amp.html)."""
_WITH_ATTRIBUTES = (*_PRODUCTS, "MoE", "MaxPool", "AveragePool")
_SERVED = ("Gather", "MoE", *_PRODUCTS, "LayerNormalization", "Swish", "Gelu", "Relu")
_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers")
_HEADS = ("lm_head", "embed", "wte")  # quantisers of weights leave the last product, and embeddings it shares


@dataclass(frozen=True)
class Operator:
    """One operator of a list, as the columns of a query, and how often it runs."""

    op: str
    inputs: tuple[tuple[int, ...] | None, ...]
    dtype: str
    attrs: str = ""
    weight_dtype: str | None = None
    math: str | None = None
    phase: str = "forward"
    count: int = 1


@dataclass(frozen=True)
class Format:
    """Number formats that are not those of the configuration.

    Attributes:
        autocast: as under `torch.autocast` to float16: products narrow, weights and activations are cast for them.
        weights: what weights of products are held in, all but those of the last.
        products: what both operands of such products are.
    """

    autocast: bool = False
    weights: str | None = None
    products: str | None = None


def key(row: Mapping[str, Any]) -> str:
    """Which list of operators a row of measurements ran, where a source measured a workload in several ways."""
    return "|".join(str(row[name]) for name in _KEY if row.get(name) is not None and row[name] == row[name])


def available() -> bool:
    """True when torch and transformers are there to trace with."""
    return find_spec("torch") is not None and find_spec("transformers") is not None


def traced(document: Mapping[str, Any], phase: str = "forward", /, **binds: int) -> Model:
    """The model of a configuration in one phase, `BATCH` samples at once; see `eopt.ir.trace.config`."""
    return _models(json.dumps(document, sort_keys=True), (("batch", BATCH), *sorted(binds.items())))[phase]


@lru_cache(maxsize=64)
def _models(document: str, binds: tuple[tuple[str, int], ...]) -> Mapping[str, Model]:
    from eopt.ir.trace import config

    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(document, encoding="utf-8")
        return config.read(path, dict(binds)).phases


def listed(model: Model, form: Format = Format()) -> list[Operator]:
    """What torch executes for a model, in order, equal operators counted; views execute nothing."""
    types: dict[str, str] = {}
    return counted(operator for op in model.leaves() for operator in _executed(model, op, types, form))


def decoded(document: Mapping[str, Any], form: Format = Format()) -> list[Operator]:
    """What a decoding step of a generative model executes, `KEYS` keys in its cache with the new token.

    Layers are alike, so one and two of them say what all are.
    """
    depth = next(name for name in _DEPTHS if name in document)
    one, two = ({replace(found, count=1): found.count for found in _shallow(document, depth, n, form)} for n in (1, 2))
    more = document[depth] - 2
    return [replace(operator, count=count + more * (count - one.get(operator, 0))) for operator, count in two.items()]


def _shallow(document: Mapping[str, Any], depth: str, layers: int, form: Format) -> list[Operator]:
    return listed(traced({**document, depth: layers}, "decode", seq=1, past=KEYS - 1), form)


def counted(operators: Iterable[Operator]) -> list[Operator]:
    """Equal operators as one, where the first of them stands."""
    counts: dict[Operator, int] = {}
    for operator in operators:
        one = replace(operator, count=1)
        counts[one] = counts.get(one, 0) + operator.count
    return [replace(operator, count=count) for operator, count in counts.items()]


def _executed(model: Model, op: Op, types: dict[str, str], form: Format) -> Iterator[Operator]:
    """An operator after the casts it needs; `types` follows the values."""
    given = str(op.outputs[0].dtype)
    operands = [(name, _extents(model.value(name))) if name else None for name in op.inputs]
    held = [(types.get(name, str(model.value(name).dtype)), shape) for name, shape in filter(None, operands)]
    floats = [dtype for dtype, shape in held if "float" in dtype and shape]
    dtype = floats[0] if "Normalization" in op.op and floats else max(floats, key=_bits, default=given)
    casts = form.autocast and op.op in (*_PRODUCTS, *_WIDE)
    if casts:
        dtype = "float16" if op.op in _PRODUCTS else "float32"
    types.update({value.id: dtype if "float" in given and op.op != "Cast" else given for value in op.outputs})
    described = spec(op.op, op.domain)
    if op.op in _STRIDED or (described is not None and Trait.VIEW in described.traits):
        return
    for have, shape in held if casts else []:
        if "float" in have and have != dtype:
            yield Operator("Cast", (shape,), have, attrs_text(to=dtype))
    yield _asked(op, [operand and operand[1] for operand in operands], dtype, form)


def _asked(op: Op, shapes: Sequence[tuple[int, ...] | None], dtype: str, form: Format) -> Operator:
    if op.op == "BatchNormalization":  # one elementwise kernel, and not one that goes over rows as other norms do
        return Operator("Mul", (shapes[0], (*(shapes[1] or ()), 1, 1)), dtype)
    if op.op in _UNSAID:
        whole = max((*filter(None, shapes), _extents(op.outputs[0])), key=prod)
        return Operator(STAND_IN, (whole,), dtype)
    name = f"{op.domain}.{op.op}" if op.domain else op.op
    attrs = dict(op.attrs) if op.op in _WITH_ATTRIBUTES else {}
    if op.op == "Cast":
        attrs = {"to": str(op.outputs[0].dtype)}
    math = None
    if dtype == "float32" and op.op in _PRODUCTS:
        math = "tf32" if op.op == "Conv" else "ieee"  # what torch does where nobody says otherwise
    operator = Operator(name, tuple(shapes), dtype, attrs_text(**attrs), math=math)
    weight = (op.inputs[1] or "") if op.op in ("MatMul", "Gemm", "MoE") else ""
    if not weight or any(head in weight for head in _HEADS):
        return operator
    held = form.products or dtype
    return replace(operator, dtype=held, weight_dtype=None if form.weights == held else form.weights)


def served(operators: Sequence[Operator]) -> list[Operator]:
    """As an engine runs them: products, attention, experts and activations, and normalisations as one operator each.

    What stands between them is part of these, or small beside them.
    """
    return [
        Operator("RMSNormalization", (shape, shape[-1:]), "bfloat16", count=operator.count)
        if operator.op == "Pow" and (shape := operator.inputs[0])
        else operator
        for operator in operators
        if operator.op == "Pow" or operator.op.rpartition(".")[2] in _SERVED
    ]


def training(operators: Sequence[Operator], parameters: Iterable[tuple[int, ...]], passes: int) -> list[Operator]:
    """A step of training: forward, backward, and an optimiser that goes over each parameter so many times."""
    backward = [replace(operator, phase="backward") for operator in operators if operator.op != "Cast"]
    updates = [Operator("Add", (shape, shape), "float32", count=passes) for shape in parameters]
    return [*operators, *backward[::-1], *counted(updates)]


def parameters(model: Model) -> list[tuple[int, ...]]:
    """Shapes of the weights that are learnt."""
    shapes = [(model.weights.dtype(name), tuple(model.weights.shape(name))) for name in model.weights]
    return [shape for dtype, shape in shapes if dtype is not None and dtype.is_float and shape]


def rows(workload: str, operators: Iterable[Operator], extents: Mapping[int, int]) -> list[dict[str, Any]]:
    """Rows of a table of workloads, with values for the traced extents."""
    return [
        {**asdict(operator), "workload": workload, "position": place, "inputs": [
            None if shape is None else [_put(extent, extents) for extent in shape] for shape in operator.inputs
        ]}
        for place, operator in enumerate(operators)
    ]  # fmt: skip


def frame(entries: list[dict[str, Any]]) -> pd.DataFrame | None:
    """Rows as a table of workloads; None where there are none."""
    import pandas as pd

    return pd.DataFrame(entries) if entries else None


def _put(extent: int, values: Mapping[int, int]) -> int:
    for prime, value in values.items():
        while extent and extent % prime == 0:
            extent = extent // prime * value
    return extent


def _extents(value: Value) -> tuple[int, ...]:
    return tuple(int(extent) for extent in value.shape or ())


def _bits(dtype: str) -> int:
    return int("".join(filter(str.isdigit, dtype.partition("_")[0])) or 8)
