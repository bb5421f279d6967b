"""SmoothQuant: move the outliers of activations into weights, where scales per channel hold them.

`(x / s) (s W) = x W` for any positive s per input channel; `s_j = max|x_j|^a / max|W_j|^(1-a)` evens out both factors
(Xiao et al. 2023, arXiv:2211.10438, equation 4). The division is free where a normalisation computes x: its scale and
bias take it. One that others read too (a residual) is computed a second time for the products, which costs less than a
multiplication over the same values would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eopt.backends.data import Dataset
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Context
from eopt.passes.quant.calibrate import streamed
from eopt.passes.quant.candidates import Anchor

Array = np.ndarray[Any, Any]

NORMALISATIONS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
_REACH = 1e4  # beyond it one channel would leave float16 and the weight grids of its neighbours


@dataclass(frozen=True)
class Group:
    """Products that read one normalised tensor.

    Attributes:
        norm: the operator that computes it.
        inputs: places of its scale and bias among its inputs.
    """

    norm: Op
    anchors: tuple[Anchor, ...]
    inputs: tuple[int, ...]


def groups(model: Model, anchors: Iterable[Anchor]) -> list[Group]:
    """Where smoothing is free: products behind a normalisation over their input channels, with weights of their own."""
    readers: dict[str, list[Anchor]] = {}
    for anchor in anchors:
        if anchor.op.op != "Conv":
            readers.setdefault(anchor.data, []).append(anchor)
    found = (_group(model, tensor, tuple(alike)) for tensor, alike in readers.items())
    return [group for group in found if group is not None]


def smoothed(model: Model, found: Sequence[Group], data: Dataset, context: Context, alpha: float) -> Model:
    """The same function with activations evened out against weights.

    Args:
        found: see `groups`.
        alpha: share of the difficulty that weights take, of (0, 1); the paper has 0.5.
    """
    reach = _Reach()
    streamed(model, [group.anchors[0].data for group in found], data, context, reach.take)
    for group in found:
        peaks = reach.peaks.get(group.anchors[0].data)
        if peaks is not None and np.isfinite(peaks).all():
            model = _moved(model, group, _factors(model, group, peaks, alpha))
    return model.swept()


@dataclass
class _Reach:
    """Largest magnitude by channel of the last axis."""

    peaks: dict[str, Array] = field(default_factory=dict)

    def take(self, name: str, array: Array) -> None:
        if array.size:
            seen = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
            self.peaks[name] = np.maximum(self.peaks.get(name, 0.0), seen)


def _group(model: Model, tensor: str, anchors: tuple[Anchor, ...]) -> Group | None:
    norm = model.producer(tensor)
    if norm is None or norm.op not in NORMALISATIONS or len([value for value in norm.outputs if value.id]) != 1:
        return None
    weights = [anchor.weight for anchor in anchors]
    alone = all({user.uid for user in model.users(name)} <= {a.op.uid for a in anchors} for name in weights)
    transposed = any(anchor.op.attrs.get("transA", 0) for anchor in anchors)
    inputs = tuple(place for place in (1, 2) if place < len(norm.inputs) and norm.inputs[place])
    arrays = [model.constant(norm.inputs[place] or "") for place in inputs]
    channels = _channels(model, anchors[0])
    fits = all(array is not None and array.shape == (channels,) for array in arrays)
    return (
        Group(norm, anchors, inputs)
        if alone and fits and not transposed and len(set(weights)) == len(weights)
        else None
    )


def _channels(model: Model, anchor: Anchor) -> int:
    weight = model.constant(anchor.weight)
    assert weight is not None
    return int(weight.shape[anchor.input_axis(weight.ndim)])


def _factors(model: Model, group: Group, peaks: Array, alpha: float) -> Array:
    """s by input channel, float32, geometric mean near 1."""
    columns = []
    for anchor in group.anchors:
        weight = model.constant(anchor.weight)
        assert weight is not None
        others = tuple(axis for axis in range(weight.ndim) if axis != anchor.input_axis(weight.ndim))
        columns.append(np.abs(weight).max(axis=others))
    reach = np.max(columns, axis=0)
    alive = (peaks > 0) & (reach > 0)
    factors = np.ones_like(peaks, dtype=np.float64)
    factors[alive] = peaks[alive] ** alpha / reach[alive] ** (1 - alpha)
    factors[alive] /= np.exp(np.log(factors[alive]).mean()) if alive.any() else 1.0
    return np.clip(factors, 1 / _REACH, _REACH).astype(np.float32)


def _moved(model: Model, group: Group, factors: Array) -> Model:
    """The normalisation divided by the factors for these products alone, and their weights times them."""
    arrays: dict[str, Array] = {}
    inputs = list(group.norm.inputs)
    for place in group.inputs:
        name, array = inputs[place] or "", model.constant(inputs[place] or "")
        assert array is not None
        inputs[place] = model.fresh(f"{name}_smooth")
        arrays[inputs[place] or ""] = array / factors
    tensor = model.fresh(f"{group.norm.output}_smooth")
    made = replace(group.norm.outputs[0], id=tensor)
    divided = replace(group.norm, uid=0, name="", inputs=tuple(inputs), outputs=(made,))
    model = model.replace([group.norm], [group.norm, divided], weights=arrays)
    for anchor in group.anchors:
        model = _multiplied(model, anchor, tensor, factors)
    return model


def _multiplied(model: Model, anchor: Anchor, tensor: str, factors: Array) -> Model:
    weight = model.constant(anchor.weight)
    assert weight is not None
    shape = [-1 if axis == anchor.input_axis(weight.ndim) else 1 for axis in range(weight.ndim)]
    name = model.fresh(f"{anchor.weight}_smooth")
    old = model.index.op(anchor.op.uid)
    read: Mapping[str | None, str] = {anchor.data: tensor, anchor.weight: name}
    new = replace(old, uid=0, inputs=tuple(read.get(item, item) for item in old.inputs))
    return model.replace([old], [new], weights={name: weight * factors.reshape(shape)})
