"""Operators that make values: constants, ranges, random numbers, windows."""

from __future__ import annotations

from math import log2

from eopt.ir.ops import OpView, Tie, Unit, Work, declare
from eopt.ir.opset.shared import EXP, LOG, kept, vector

# A 32-bit word of Philox4x32-10: ten rounds of two wide products (4), four exclusive ors and two additions for four
# words (https://doi.org/10.1145/2063384.2063405). Uniform scales and shifts it; normal values come in pairs by
# Box-Muller from a logarithm, a root and two angles.
_WORD = 25
_UNIFORM = _WORD + 2
_NORMAL = _WORD + (LOG + 1 + 20 + 20) // 2 + 2
_COSINE = 20
PER_ELEMENT = {
    "RandomUniform": _UNIFORM, "RandomUniformLike": _UNIFORM, "RandomNormal": _NORMAL, "RandomNormalLike": _NORMAL,
    "HannWindow": _COSINE + 3, "HammingWindow": _COSINE + 3, "BlackmanWindow": 2 * _COSINE + 6, "MelWeightMatrix": 8,
}  # fmt: skip


def _fill(view: OpView) -> Work:
    """Writes its result, reads nothing."""
    y = view.outputs[0]
    return Work(0.0, 0.0, y.nbytes, Unit.MOVE, y.dtype)


def _computed(view: OpView) -> Work:
    """By operator, per element of the result. Of an input only the shape matters."""
    y = view.outputs[0]
    return Work(float(PER_ELEMENT[view.op] * y.numel), 0.0, y.nbytes, Unit.VECTOR, y.dtype)


def _bernoulli(view: OpView) -> Work:
    """A random word and a comparison per element."""
    return vector(view, (_UNIFORM + 1) * view.input(0).numel)


def _multinomial(view: OpView) -> Work:
    """Cumulative probabilities of every class (exp and sum), then a random word and a binary search per sample."""
    x, y = view.input(0), view.outputs[0]
    return vector(view, (EXP + 1) * x.numel + (_UNIFORM + log2(max(2, x.shape[-1]))) * y.numel)


def _batch_axes(view: OpView) -> tuple[Tie, ...]:
    """Rows are drawn independently."""
    return kept(view, [-1])


def _random_axes(view: OpView) -> tuple[Tie, ...]:
    """Positions map one to one, though which number falls where depends on them."""
    return kept(view)


declare(["ConstantOfShape", "Range", "EyeLike"], _fill)
declare(["Range"], _fill, domain="com.microsoft")
declare(PER_ELEMENT, _computed)
declare(["Bernoulli"], _bernoulli, _random_axes)
declare(["Multinomial"], _multinomial, _batch_axes)
