"""Root-mean-square normalisation, written out, as one operator (Zhang and Sennrich, https://arxiv.org/abs/1910.07467).

x / sqrt(mean(x^2) + e) * scale,  over the last axis
"""

from __future__ import annotations

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.passes.fuse.means import mean_over_last, square_of, with_epsilon
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("rms-norm", "Sqrt")
def rms_norm(m: Matcher, root: Op) -> Replacement:
    """Starts from the square root; the reciprocal may be its own operator, and the scale stands on either side.

    A scale of ones is often folded away before; the operator needs one, so it is put back.
    """
    plus, epsilon, mean = with_epsilon(m, root)
    mean_over_last(m, mean)
    square = m.producer(mean, 0, ("Pow", "Mul"), uses=1)
    x = m.model.value(square_of(m, square))
    m.need(x.shape is not None and isinstance(x.shape[-1], int), "the normalised extent is unknown", square)
    assert x.shape is not None
    m.need(x.dtype is not None and x.dtype.is_float, "the type is unknown", square)
    assert x.dtype is not None
    normalised, inner = _normalised(m, root, x.id)
    matched = [square, mean, plus, root, *inner, normalised]
    attrs = Attrs.of(axis=-1, epsilon=epsilon)
    scaled, scale = _scale(m, normalised, (x.shape[-1],))
    if scaled is None:
        ones = m.model.fresh(f"{normalised.output}_scale")
        node = Op("RMSNormalization", (x.id, ones), normalised.outputs, attrs, name=root.name)
        return Replacement(matched, [node], {ones: np.ones(x.shape[-1:], x.dtype.numpy)})
    m.need(m.model.value(scaled.output).dtype == x.dtype, "types differ between input and result", scaled)
    node = Op("RMSNormalization", (x.id, scale), scaled.outputs, attrs, name=root.name)
    return Replacement([*matched, scaled], [node])


def _scale(m: Matcher, normalised: Op, shape: tuple[object, ...]) -> tuple[Op | None, str]:
    """The product with a constant vector behind the normalisation, if there is one and nothing else."""
    users = m.model.users(normalised.output)
    if len(users) != 1 or users[0].op != "Mul" or m.model.is_output(normalised.output):
        return None, ""
    (scaled,) = users
    scale = scaled.inputs[1] if scaled.inputs[0] == normalised.output else scaled.inputs[0]
    array = m.model.constant(scale or "")
    return (scaled, scale or "") if array is not None and array.shape == shape else (None, "")


def _normalised(m: Matcher, root: Op, x: str) -> tuple[Op, list[Op]]:
    """The operator that computes x / root, and the Reciprocal before it, if any."""
    user = m.user(root.output, ("Div", "Reciprocal"))
    if user.op == "Div" and user.inputs[0] == x:
        return user, []
    if user.op == "Div":
        m.need(_is_one(m, user.inputs[0]), "the root divides another value", user)
    product = m.user(user.output, "Mul")
    m.need(x in product.inputs, "another value is normalised", product)
    return product, [user]


def _is_one(m: Matcher, name: str | None) -> bool:
    array = m.model.constant(name) if name else None
    return array is not None and array.size == 1 and float(array.reshape(-1)[0]) == 1.0
