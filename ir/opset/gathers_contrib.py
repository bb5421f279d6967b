"""Gathers of onnxruntime: quantised tables, padding taken out and put back, n-grams, position buckets."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.gather import gather_axes, gather_nd_axes
from eopt.ir.opset.shared import LOG, SIGMOID, mapped, moved, vector, wholes

_MICROSOFT = "com.microsoft"


def _gather(view: OpView) -> Work:
    """Reads the selected elements and the indices, writes the result."""
    return moved(view, view.outputs[0].nbytes + view.input(1).nbytes)


def _packed(view: OpView) -> Work:
    """Reads the stored bits of the selected rows with their scales; unpacking and scaling takes 3 per element."""
    data, indices, y = view.input(0), view.input(1), view.outputs[0]
    tables = [tensor for tensor in (data, *view.inputs[2:]) if tensor]
    rows = data.shape[view.attrs.get("gather_axis", 0)]
    read = indices.numel / rows * sum(table.nbytes for table in tables)
    return Work(3.0 * y.numel, read + indices.nbytes, y.nbytes, Unit.VECTOR, y.dtype)


def _unpad(view: OpView) -> Work:
    """Copies the tokens that are there."""
    return moved(view, min(view.input(0).nbytes, view.outputs[0].nbytes) + view.input(1).nbytes)


def _all(view: OpView) -> Work:
    """Looks at everything; how much is distinct counts with the extent that is declared."""
    return moved(view)


def _repeats(view: OpView) -> Work:
    """Compares the last n-gram with every earlier one (n each); the scores are copied."""
    ids = view.input(0)
    return vector(view, view.attrs["ngram_size"] * ids.numel)


def _buckets(view: OpView) -> Work:
    """A bucket for each pair of positions (a logarithm and 6 more), its row of the table for every head."""
    y = view.outputs[0]
    pairs = y.shape[-1] * y.shape[-2]
    return Work(float((LOG + 6) * pairs), view.input(0).nbytes, y.nbytes, Unit.VECTOR, y.dtype)


def _gated_bias(view: OpView) -> Work:
    """A projection of every query head to D gates, two sigmoids, 3 operations per element of the bias."""
    y, weight = view.outputs[0], view.input(3)
    positions = y.numel // y.shape[-1]
    gates = 2 * weight.numel + weight.shape[1] + 2 * SIGMOID
    return vector(view, positions * gates + view.input(0).numel + 3 * y.numel)


def _bias_axes(view: OpView) -> tuple[Tie, ...]:
    return wholes(view, [mapped(("x0", 1, 1), ("y0", 1, 1))])


def _rows_axes(view: OpView) -> tuple[Tie, ...]:
    """The features of a token stay together and map one to one."""
    x, y = view.input(0).shape, view.outputs[0].shape
    return wholes(view, [mapped(("x0", len(x) - 1, 1), ("y0", len(y) - 1, 1))])


_LAYOUT = (Trait.LAYOUT,)
declare(["GatherND"], _gather, gather_nd_axes, _LAYOUT, _MICROSOFT)
declare(["TorchEmbedding"], _gather, gather_axes, _LAYOUT, _MICROSOFT)
declare(["GatherBlockQuantized", "GatherPacked"], _packed, traits=_LAYOUT, domain=_MICROSOFT)
declare(["RemovePadding", "RestorePadding"], _unpad, _rows_axes, _LAYOUT, _MICROSOFT)
declare(["Unique"], _all, traits=_LAYOUT, domain=_MICROSOFT)
declare(["NGramRepeatBlock"], _repeats, domain=_MICROSOFT)
declare(["RelativePositionBias"], _buckets, _bias_axes, domain=_MICROSOFT)
declare(["GatedRelativePositionBias"], _gated_bias, domain=_MICROSOFT)
