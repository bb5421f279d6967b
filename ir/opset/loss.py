"""Losses over classes: scores (N, C, d1 ...), labels (N, d1 ...)."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import SOFTMAX, contracted, mapped, passes, vector, wholes


def _cross_entropy(view: OpView) -> Work:
    """A logarithmic softmax over the classes (14 per score), then three operations per label."""
    scores, labels = view.input(0), view.input(1)
    again = passes(scores, 2, scores.shape[1])
    return vector(view, SOFTMAX * scores.numel + 3 * labels.numel, again=again)


def _likelihood(view: OpView) -> Work:
    """Picks the score of every label: three operations for weight, sign and mean, and only these scores are read."""
    scores, labels, weights = view.input(0), view.input(1), view.optional(2)
    read = labels.nbytes + labels.numel * scores.dtype.bits / 8 + (weights.nbytes if weights else 0.0)
    return Work(3.0 * labels.numel, read, view.outputs[0].nbytes, Unit.VECTOR, scores.dtype)


def _axes(view: OpView) -> tuple[Tie, ...]:
    """Samples are summed over unless there is no reduction; classes are mixed."""
    rank, each = len(view.input(0).shape), view.attrs.get("reduction", "mean") == "none"
    ties = []
    for label, score in enumerate([0, *range(2, rank)]):
        members = [("x0", score, 1), ("x1", label, 1)]
        ties.append(mapped(*members, ("y0", label, 1)) if each else contracted(*members))
    return wholes(view, ties)


_REDUCTION = (Trait.REDUCTION,)
declare(["SoftmaxCrossEntropyLoss"], _cross_entropy, _axes, _REDUCTION)
declare(["NegativeLogLikelihoodLoss"], _likelihood, _axes, _REDUCTION)
