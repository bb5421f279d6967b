"""The grids of weights: one per stored tensor, whoever uses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.ir.model import Model
from eopt.passes.quant import params
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.params import Grid

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class WeightGrid:
    """How one stored weight is quantised.

    Attributes:
        name: of the quantised weight.
        scales: float32, shape (channels,) or ().
        axis: along which the scales run; None for a single one.
    """

    name: str
    scales: Array
    axis: int | None


def weight_grids(
    model: Model, anchors: Iterable[Anchor], grids: Mapping[str, Grid | None], limit: float, per_channel: bool
) -> dict[str, WeightGrid]:
    """A grid for each weight, by its name.

    A tied weight gets one for all of its users; where they disagree on its output channels, that is a single scale.

    Args:
        grids: of the activations; None of those whose grid is found when the model runs.
        limit: largest magnitude a stored weight has.
    """
    users: dict[str, list[Anchor]] = {}
    for anchor in anchors:
        users.setdefault(anchor.weight, []).append(anchor)
    return {name: _weight_grid(model, name, tied, grids, limit, per_channel) for name, tied in users.items()}


def _weight_grid(
    model: Model, name: str, tied: list[Anchor], grids: Mapping[str, Grid | None], limit: float, per_channel: bool
) -> WeightGrid:
    axes = {anchor.axis for anchor in tied}
    axis = axes.pop() if per_channel and len(axes) == 1 else None
    floors: Array = np.zeros(())
    for anchor in tied:
        bias = model.constant(anchor.bias) if anchor.bias else None
        grid = grids[anchor.data]
        if bias is not None and grid is not None:
            least = params.bias_floors(np.broadcast_to(bias.reshape(-1), anchor.channels), grid.scale)
            floors = np.maximum(floors, least if axis is not None else least.max())
    weight = model.constant(name)
    assert weight is not None
    return WeightGrid(model.fresh(f"{name}_q"), params.weight_scales(weight, axis, limit, floors), axis)
