"""ATen calls as the ONNX operators that cost the same: a traced program is priced, not run.

So `rsqrt` is one Reciprocal and `ne` one Equal; shapes, types and what is read and written are exact. A call that has
no counterpart here stays what it is, in the domain `aten`: it is shown, and costs `Unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Ints:
    """A constant int64 vector as an input: shapes, axes, pads."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One ONNX operator. Inputs are tensors, Python numbers (constants of the type of the result), `Ints`, or None."""

    op: str
    inputs: Sequence[Any]
    attrs: Mapping[str, Any] = field(default_factory=dict)


Rule = Callable[[Arguments, Any], Step | None]
"""From the arguments by schema name and the first result; None for what only renames its input."""

_PLAIN = """
    add=Add:self,other sub=Sub:self,other mul=Mul:self,other div=Div:self,other pow=Pow:self,exponent
    rsub=Sub:other,self
    maximum=Max:self,other minimum=Min:self,other remainder=Mod:self,other fmod=Mod:self,other atan2=Atan:self,other
    eq=Equal:self,other ne=Equal:self,other lt=Less:self,other le=LessOrEqual:self,other gt=Greater:self,other
    ge=GreaterOrEqual:self,other logical_and=And:self,other logical_or=Or:self,other logical_xor=Xor:self,other
    bitwise_and=BitwiseAnd:self,other bitwise_or=BitwiseOr:self,other bitwise_not=BitwiseNot:self logical_not=Not:self
    floor_divide=Div:self,other __and__=And:self,other __or__=Or:self,other
    neg=Neg:self abs=Abs:self exp=Exp:self log=Log:self sqrt=Sqrt:self rsqrt=Reciprocal:self reciprocal=Reciprocal:self
    sin=Sin:self cos=Cos:self tanh=Tanh:self erf=Erf:self sigmoid=Sigmoid:self relu=Relu:self gelu=Gelu:self
    silu=Swish:self mish=Mish:self softplus=Softplus:self elu=Elu:self leaky_relu=LeakyRelu:self
    hardswish=HardSwish:self
    hardsigmoid=HardSigmoid:self floor=Floor:self ceil=Ceil:self round=Round:self sign=Sign:self isnan=IsNaN:self
    isinf=IsInf:self hardtanh=Clip:self,min_val,max_val relu6=Clip:self clamp=Clip:self,min,max clamp_min=Clip:self,min
    clamp_max=Clip:self,,max where=Where:condition,self,other masked_fill=Where:mask,value,self exp2=Pow:2,self
    square=Mul:self,self log1p=Log:self expm1=Exp:self tan=Tan:self log_sigmoid_forward=Softplus:self
    mm=MatMul:self,mat2 bmm=MatMul:self,mat2 mv=MatMul:self,vec dot=MatMul:self,tensor
    embedding=Gather:weight,indices gather=GatherElements:self,index take_along_dim=GatherElements:self,indices
    scatter=ScatterElements:self,index,src scatter_add=ScatterElements:self,index,src tril=Trilu:self triu=Trilu:self
    nonzero=NonZero:self lift_fresh_copy=Identity:self copy=Identity:src fill=Expand:value
    _conj=Identity:self clone=Identity:self contiguous=Identity:self copy_=Identity:src
"""

_VIEWS = "view _unsafe_view reshape unsqueeze squeeze flatten unflatten view_as_real _reshape_alias as_strided"
_RENAMES = "alias detach lift lift_fresh lift_fresh_copy set_ resolve_conj resolve_neg"
_CREATED = """arange zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full
    new_empty scalar_tensor eye linspace rand randn rand_like randn_like empty_strided new_empty_strided"""


def _plain(op: str, names: list[str]) -> Rule:
    def rule(arguments: Arguments, result: Any) -> Step:
        return Step(op, [int(name) if name.isdigit() else arguments.get(name) for name in names])

    return rule


def _table() -> dict[str, Rule]:
    table: dict[str, Rule] = {}
    for entry in _PLAIN.split():
        name, _, meaning = entry.partition("=")
        op, _, inputs = meaning.partition(":")
        table[name] = _plain(op, inputs.split(","))
    table.update(dict.fromkeys(_VIEWS.split(), _reshaped))
    table.update(dict.fromkeys(_CREATED.split(), lambda arguments, result: Step("ConstantOfShape", [_shape(result)])))
    table.update(dict.fromkeys(_RENAMES.split(), lambda arguments, result: None))
    return table


def _shape(tensor: Any) -> Ints:
    return Ints(tuple(tensor.shape))


def _reshaped(arguments: Arguments, result: Any) -> Step:
    return Step("Reshape", [arguments["self"], _shape(result)])


def _axes(arguments: Arguments) -> tuple[int, ...]:
    dims = arguments.get("dim")
    if dims is None or dims == []:
        return tuple(range(arguments["self"].dim()))
    return tuple(dims) if isinstance(dims, list | tuple) else (dims,)


def _reduction(op: str) -> Rule:
    def rule(arguments: Arguments, result: Any) -> Step:
        keep = int(bool(arguments.get("keepdim", False)))
        return Step(op, [arguments["self"], Ints(_axes(arguments))], {"keepdims": keep})

    return rule


def _along(op: str, argument: str = "self", axis: str = "dim") -> Rule:
    return lambda arguments, result: Step(op, [arguments[argument]], {"axis": arguments[axis]})


def _joined(arguments: Arguments, result: Any) -> Step:
    parts = [tensor for tensor in arguments["tensors"] if tensor.numel()]
    return Step("Concat", parts, {"axis": arguments.get("dim", 0)}) if len(parts) > 1 else Step("Identity", parts)


def _cast(arguments: Arguments, result: Any) -> Step:
    same = arguments["self"].dtype == result.dtype
    return Step("Identity" if same else "Cast", [arguments["self"]])


def _cut(arguments: Arguments, result: Any) -> Step:
    """Slices that keep everything are views."""
    whole = arguments["self"].shape == result.shape
    return Step("Identity", [arguments["self"]]) if whole else Step("Slice", [arguments["self"], _shape(result)])


def _permuted(perm: Callable[[Arguments], Sequence[int]]) -> Rule:
    return lambda arguments, result: Step("Transpose", [arguments["self"]], {"perm": list(perm(arguments))})


def _swapped(arguments: Arguments) -> Sequence[int]:
    order = list(range(arguments["self"].dim()))
    first, second = arguments.get("dim0", 0), arguments.get("dim1", 1)
    if len(order) > 1:
        order[first], order[second] = order[second], order[first]
    return order


def _expanded(arguments: Arguments, result: Any) -> Step:
    same = arguments["self"].shape == result.shape
    return Step("Identity", [arguments["self"]]) if same else Step("Expand", [arguments["self"], _shape(result)])


def _gemm(arguments: Arguments, result: Any) -> Step:
    return Step("Gemm", [arguments["mat1"], arguments["mat2"], arguments["self"]])


def _convolution(arguments: Arguments, result: Any) -> Step:
    pads = list(arguments["padding"])
    attrs = {"strides": list(arguments["stride"]), "dilations": list(arguments["dilation"]), "pads": [*pads, *pads]}
    op = "ConvTranspose" if arguments["transposed"] else "Conv"
    return Step(
        op, [arguments["input"], arguments["weight"], arguments["bias"]], {**attrs, "group": arguments["groups"]}
    )


def _layer_norm(arguments: Arguments, result: Any) -> Step:
    axis = -len(arguments["normalized_shape"])
    return Step("LayerNormalization", [arguments["input"], arguments["weight"], arguments["bias"]], {"axis": axis})


def _rms_norm(arguments: Arguments, result: Any) -> Step:
    return Step(
        "RMSNormalization", [arguments["input"], arguments["weight"]], {"axis": -len(arguments["normalized_shape"])}
    )


def _group_norm(arguments: Arguments, result: Any) -> Step:
    inputs = [arguments["input"], arguments["weight"], arguments["bias"]]
    return Step("GroupNormalization", inputs, {"num_groups": arguments["group"]})


def _batch_norm(arguments: Arguments, result: Any) -> Step:
    return Step("BatchNormalization", [arguments[name] for name in ("input", "weight", "bias", *_STATISTICS)])


_STATISTICS = ("running_mean", "running_var")


def _pool(op: str) -> Rule:
    def rule(arguments: Arguments, result: Any) -> Step:
        kernel = list(arguments["kernel_size"])
        return Step(op, [arguments["self"]], {"kernel_shape": kernel, "strides": list(arguments["stride"] or kernel)})

    return rule


def _adaptive(arguments: Arguments, result: Any) -> Step:
    """Windows of nearly equal size; one window is the whole image."""
    image, size = arguments["self"].shape[2:], result.shape[2:]
    if all(extent == 1 for extent in size):
        return Step("GlobalAveragePool", [arguments["self"]])
    kernel = [-(-whole // parts) for whole, parts in zip(image, size, strict=True)]
    return Step("AveragePool", [arguments["self"]], {"kernel_shape": kernel})


def _index(arguments: Arguments, result: Any) -> Step:
    return Step("GatherND", [arguments["self"], *(index for index in arguments["indices"] if index is not None)])


def _index_put(arguments: Arguments, result: Any) -> Step:
    (indices, *_) = [index for index in arguments["indices"] if index is not None]
    return Step("ScatterND", [arguments["self"], indices, arguments["values"]])


def _padded(arguments: Arguments, result: Any) -> Step:
    return Step("Pad", [arguments["self"], _shape(result)])


RULES: dict[str, Rule] = {
    **_table(),
    **{name: _reduction(op) for name, op in (
        ("mean", "ReduceMean"), ("sum", "ReduceSum"), ("amax", "ReduceMax"), ("amin", "ReduceMin"),
        ("prod", "ReduceProd"), ("var", "ReduceSumSquare"), ("std", "ReduceSumSquare"), ("any", "ReduceMax"),
        ("all", "ReduceMin"), ("logsumexp", "ReduceLogSumExp"),
        ("linalg_vector_norm", "ReduceL2"), ("norm", "ReduceL2"),
        ("max", "ReduceMax"), ("min", "ReduceMin"), ("argmax", "ArgMax"), ("argmin", "ArgMin"),
    )},
    "_softmax": _along("Softmax"), "_safe_softmax": _along("Softmax"), "_log_softmax": _along("LogSoftmax"),
    "cumsum": _along("CumSum"), "topk": _along("TopK"), "sort": _along("TopK"),
    "split": _along("Split"), "split_with_sizes": _along("Split"), "unbind": _along("Split"), "chunk": _along("Split"),
    "cat": _joined, "stack": _joined, "_to_copy": _cast, "slice": _cut, "select": _cut, "narrow": _cut,
    "diagonal": _cut,
    "t": _permuted(_swapped), "transpose": _permuted(_swapped), "permute": _permuted(lambda a: a["dims"]),
    "expand": _expanded, "repeat": lambda a, y: Step("Tile", [a["self"], Ints(tuple(a["repeats"]))]),
    "addmm": _gemm, "convolution": _convolution, "native_layer_norm": _layer_norm, "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm, "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "cudnn_batch_norm": _batch_norm, "max_pool2d_with_indices": _pool("MaxPool"), "avg_pool2d": _pool("AveragePool"),
    "_adaptive_avg_pool2d": _adaptive, "mean_pool": _adaptive, "index": _index, "index_put": _index_put,
    "index_select": lambda a, y: Step("Gather", [a["self"], a["index"]], {"axis": a["dim"]}),
    "constant_pad_nd": _padded, "roll": lambda a, y: Step("Concat", [a["self"]], {"axis": 0}),
    "flip": lambda a, y: Step("Slice", [a["self"], _shape(y)]),
    "upsample_nearest2d": lambda a, y: Step("Resize", [a["self"]], {"mode": "nearest"}),
    "upsample_bilinear2d": lambda a, y: Step("Resize", [a["self"]], {"mode": "linear"}),
    "upsample_bicubic2d": lambda a, y: Step("Resize", [a["self"]], {"mode": "cubic"}),
}  # fmt: skip
"""By ATen name without overload; names of in-place variants end in `_` and mean the same."""


def rule_for(name: str) -> Rule | None:
    """The rule of an ATen operator."""
    return RULES.get(name) or RULES.get(name.removesuffix("_"))
