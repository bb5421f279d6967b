"""Normalisations that onnxruntime fuses with what stands around them: sums, embeddings, gates, rotations."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import SIGMOID, aligned, mapped, passes, vector, wholes

# Per element, as in norm.py: layer 8, root mean square 5; a sum before it 1, a SiLU behind it 13, a gate 14,
# a rotation 3, a change of grid 4.
PER_ELEMENT = {
    "SkipLayerNormalization": 9,
    "SkipSimplifiedLayerNormalization": 6,
    "SimplifiedLayerNormalization": 5,
    "EmbedLayerNormalization": 10,
    "QEmbedLayerNormalization": 16,
    "QOrderedLayerNormalization": 12,
    "BranchwiseRMSNorm": 5,
    "GatedRMSNorm": 5 + SIGMOID + 2,
    "RMSNormRotary": 8,
    "EngramGate": 14,
}
_ROOT_MEAN_SQUARE = ("SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "BranchwiseRMSNorm",
                     "GatedRMSNorm", "RMSNormRotary", "EngramGate")  # fmt: skip


def _work(view: OpView) -> Work:
    """By operator, per element of the result."""
    y = view.outputs[0]
    count = 1 if view.op in _ROOT_MEAN_SQUARE else 2
    return vector(view, PER_ELEMENT[view.op] * y.numel, y.dtype, passes(y, count, y.shape[-1]))


def _embedding_work(view: OpView) -> Work:
    """10 operations per element. Reads the selected rows of each table, not the tables."""
    y = view.outputs[0]
    ids = sum(t.nbytes for t in view.inputs[:2] if t)
    again = passes(y, 2, y.shape[-1])
    return Work(PER_ELEMENT[view.op] * y.numel, 3 * y.nbytes + ids, y.nbytes, Unit.VECTOR, y.dtype, *again)


def _quantized_embedding(view: OpView) -> Work:
    """As EmbedLayerNormalization, from tables of 8 bits and with 2 more operations per element of each."""
    y = view.outputs[0]
    ids = sum(t.nbytes for t in view.inputs[:2] if t)
    return Work(PER_ELEMENT[view.op] * y.numel, 3.0 * y.numel + ids, y.nbytes, Unit.VECTOR, y.dtype)


def _group(view: OpView) -> Work:
    """8 operations per element, one more for a sum before and 13 for a SiLU behind."""
    x, activated = view.input(0), bool(view.attrs.get("activation", 0))
    per_element = 8 + (view.op == "SkipGroupNorm") + (SIGMOID + 1 if activated else 0)
    return vector(view, per_element * x.numel, again=passes(x, 2, prod(x.shape[1:]) // int(view.attrs["groups"])))


def _last_mixed(view: OpView) -> tuple[Tie, ...]:
    return aligned(view, [len(view.outputs[0].shape) - 1])


def _embedding_axes(view: OpView) -> tuple[Tie, ...]:
    """Batch and positions with their numbers; features are normalised together."""
    ids = [port for port in ("x0", "x1") if view.optional(int(port[1:]))]
    results = [f"y{number}" for number in range(len(view.outputs))]
    return wholes(view, [mapped(*((port, 0, 1) for port in (*ids, *results)))])


def _group_axes(view: OpView) -> tuple[Tie, ...]:
    """Images, and groups of channels."""
    x, groups = view.input(0).shape, int(view.attrs["groups"])
    channel = len(x) - 1 if view.attrs.get("channels_last", 1) else 1
    width = x[channel] // groups
    results = [f"y{number}" for number in range(len(view.outputs))]
    like = ["x0", *results]
    like += ["x3"] if view.optional(3) and view.input(3).shape == x else []
    members = [(port, channel, width) for port in like]
    return wholes(
        view, [mapped(*((port, 0, 1) for port in like)), mapped(*members, ("x1", 0, width), ("x2", 0, width))]
    )


_NORM = (Trait.NORMALIZATION,)
_MICROSOFT = "com.microsoft"
_SKIPS = ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"]
declare([*_SKIPS, "GatedRMSNorm", "QOrderedLayerNormalization"], _work, _last_mixed, _NORM, _MICROSOFT)
declare(["BranchwiseRMSNorm", "RMSNormRotary", "EngramGate"], _work, traits=_NORM, domain=_MICROSOFT)
declare(["EmbedLayerNormalization"], _embedding_work, _embedding_axes, _NORM, _MICROSOFT)
declare(["QEmbedLayerNormalization"], _quantized_embedding, _embedding_axes, _NORM, _MICROSOFT)
declare(["GroupNorm", "SkipGroupNorm"], _group, _group_axes, _NORM, _MICROSOFT)
