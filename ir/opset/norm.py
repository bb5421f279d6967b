"""Normalisations at inference. Statistics take two passes over values that stay on chip; traffic is counted once."""

from __future__ import annotations

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, traffic

# Operations per element: mean (1), centred square and sum (3), scaling by 1/sqrt (1), affine (2), rounded up for the
# division and root per row. BatchNormalization at inference is one multiply-add with folded statistics.
_PER_ELEMENT = {
    "BatchNormalization": 2,
    "LayerNormalization": 8,
    "GroupNormalization": 8,
    "InstanceNormalization": 8,
    "MeanVarianceNormalization": 6,
    "RMSNormalization": 5,
    "SimplifiedLayerNormalization": 5,
    "LpNormalization": 4,
    "LRN": 8,
    "SkipLayerNormalization": 9,
    "SkipSimplifiedLayerNormalization": 6,
    "EmbedLayerNormalization": 10,
}


def _work(view: OpView) -> Work:
    read, written = traffic(view)
    y = view.outputs[0]
    return Work(_PER_ELEMENT[view.op] * y.numel, read, written, Unit.VECTOR, y.dtype)


def _embedding_work(view: OpView) -> Work:
    """Reads the selected rows of each table, not the tables."""
    y = view.outputs[0]
    ids = sum(t.nbytes for t in view.inputs[:2] if t)
    return Work(_PER_ELEMENT[view.op] * y.numel, 3 * y.nbytes + ids, y.nbytes, Unit.VECTOR, y.dtype)


def _trailing_axes(view: OpView) -> tuple[Tie, ...]:
    """Axes before `axis` are independent; those from it on are mixed, and tied to scale and bias."""
    x = view.input(0)
    rank, axis = len(x.shape), view.axis(-1)
    ties = [Tie((("x0", number, 1), ("y0", number, 1)), Role.MAP) for number in range(axis)]
    for number in range(axis, rank):
        members = [("x0", number, 1), ("y0", number, 1)]
        for port in range(1, len(view.inputs)):
            parameter = view.inputs[port]
            own = number - (rank - len(parameter.shape)) if parameter else -1
            if parameter and own >= 0 and parameter.shape[own] == x.shape[number]:
                members.append((f"x{port}", own, 1))
        ties.append(Tie(tuple(members), Role.WHOLE))
    return tuple(ties)


def _batch_norm_axes(view: OpView) -> tuple[Tie, ...]:
    rank = len(view.input(0).shape)
    ties = [Tie((("x0", axis, 1), ("y0", axis, 1)), Role.MAP) for axis in range(rank) if axis != 1]
    channel = (("x0", 1, 1), ("y0", 1, 1), *((f"x{port}", 0, 1) for port in range(1, 5)))
    return (*ties, Tie(channel, Role.MAP))


_NORM = (Trait.NORMALIZATION,)
declare(["BatchNormalization"], _work, _batch_norm_axes, _NORM)
declare(["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"], _work, _trailing_axes, _NORM)
declare(
    ["GroupNormalization", "InstanceNormalization", "MeanVarianceNormalization", "LpNormalization", "LRN"],
    _work,
    traits=_NORM,
)
declare(
    ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"],
    _work,
    traits=_NORM,
    domain="com.microsoft",
)
declare(["EmbedLayerNormalization"], _embedding_work, traits=_NORM, domain="com.microsoft")
