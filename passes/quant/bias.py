"""Bias correction: what rounding the weights adds to the mean of every output channel is taken from its bias.

The error of `W x` with rounded weights is `(Q - W) x`; its mean over samples, `(Q - W) E[x]`, is a constant per channel
(Nagel et al. 2019, arXiv:1906.04721, section 4.2). For convolutions E[x] is taken at every place of the kernel: padding
counts as the zeros it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from eopt.ir.model import Model
from eopt.passes.quant import params
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.scheme import Scheme
from eopt.passes.quant.weights import WeightGrid

Array = np.ndarray[Any, Any]


@dataclass
class Means:
    """Mean of what every weight of an anchor is multiplied with, over all samples and places of its output.

    Attributes:
        sums: by uid of the anchor; of a convolution [channels, *kernel], of a product [k].
    """

    model: Model
    anchors: tuple[Anchor, ...]
    sums: dict[int, Array] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def tensors(self) -> list[str]:
        """What to tap."""
        return [anchor.data for anchor in self._able()]

    def take(self, name: str, array: Array) -> None:
        """Add one batch of a tensor."""
        for anchor in (anchor for anchor in self._able() if anchor.data == name and array.size):
            total, count = self._windows(anchor, array) if anchor.op.op == "Conv" else _rows(anchor, array)
            self.sums[anchor.op.uid] = self.sums.get(anchor.op.uid, 0.0) + total
            self.counts[anchor.op.uid] = self.counts.get(anchor.op.uid, 0) + count

    def shift(self, anchor: Anchor, grid: WeightGrid, numbers: Scheme) -> Array | None:
        """`(W - Q) E[x]`, float64 [channels]; None where E[x] is not known."""
        weight, total = self.model.constant(anchor.weight), self.sums.get(anchor.op.uid)
        if total is None or weight is None or not np.isfinite(total).all():
            return None
        stored = params.quantized(weight, grid.scales, grid.axis, numbers.weight)
        error = weight - params.dequantized(stored, grid.scales, grid.axis)
        mean = total / self.counts[anchor.op.uid]
        if anchor.op.op != "Conv":
            return np.asarray(mean @ error if anchor.axis == 1 else error @ mean)
        groups = int(anchor.op.attrs.get("group", 1))
        by_group = error.reshape(groups, -1, error[0].size), mean.reshape(groups, -1)
        return np.asarray(np.einsum("gok,gk->go", *by_group).reshape(-1))

    def _able(self) -> Iterable[Anchor]:
        return (
            a
            for a in self.anchors
            if a.op.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
            and not a.op.attrs.get("transA", 0)
            and a.axis is not None
        )

    def _windows(self, anchor: Anchor, array: Array) -> tuple[Array, int]:
        """Sums over the places of the output, by channel and place of the kernel."""
        shape = self.model.value(anchor.weight).shape or ()
        kernel = [int(size) for size in shape[2:]]
        rank, attrs = len(kernel), anchor.op.attrs
        pads, strides, dilations = (
            list(attrs.get(name) or [usual] * count)
            for name, usual, count in (("pads", 0, 2 * rank), ("strides", 1, rank), ("dilations", 1, rank))
        )
        around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        padded = np.pad(array, around)
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        places = [(size - span) // s + 1 for size, span, s in zip(padded.shape[2:], spans, strides, strict=True)]
        total = np.zeros((*kernel, array.shape[1]))
        for offset in product(*map(range, kernel)):
            cut: list[slice] = [slice(None), slice(None)]
            cut += [
                slice(o * d, o * d + s * (n - 1) + 1, s)
                for o, d, s, n in zip(offset, dilations, strides, places, strict=True)
            ]
            seen = padded[tuple(cut)]
            total[offset] = seen.sum(axis=(0, *range(2, 2 + rank)), dtype=np.float64)
        return np.moveaxis(total, -1, 0), len(array) * math.prod(places)


def _rows(anchor: Anchor, array: Array) -> tuple[Array, int]:
    rows = array.reshape(-1, array.shape[-1])
    return rows.sum(axis=0, dtype=np.float64), len(rows)


def behind(model: Model, anchor: Anchor, shift: Array) -> Model:
    """The model with a shift of a product that has no bias in the constant that is added behind it, if there is one.

    A vector added behind a convolution runs along its last axis, not along its channels.
    """
    users = model.users(anchor.op.output)
    alone = len(users) == 1 and not model.is_output(anchor.op.output)
    if anchor.op.op == "Conv" or not alone or users[0].op != "Add" or users[0].domain:
        return model
    add = users[0]
    (name,) = (item or "" for item in add.inputs if item != anchor.op.output) if len(set(add.inputs)) == 2 else ("",)
    constant = model.constant(name)
    if constant is None or constant.shape != shift.shape:
        return model
    moved = model.fresh(f"{name}_corrected")
    inputs = tuple(moved if item == name else item for item in add.inputs)
    arrays = {moved: (constant + shift).astype(constant.dtype)}
    return model.replace([add], [replace(add, inputs=inputs, uid=0)], weights=arrays)
