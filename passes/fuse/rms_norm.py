"""Root-mean-square normalisation, written out, as one operator (Zhang and Sennrich, https://arxiv.org/abs/1910.07467).

x / sqrt(mean(x^2) + e) * scale,  over the last axis
"""

from __future__ import annotations

from eopt.ir.node import Attrs, Op
from eopt.passes.fuse.means import mean_over_last, square_of, with_epsilon
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("rms-norm", "Sqrt")
def rms_norm(m: Matcher, root: Op) -> Replacement:
    """Starts from the square root; the reciprocal may be its own operator, and the scale stands on either side."""
    plus, epsilon, mean = with_epsilon(m, root)
    mean_over_last(m, mean)
    square = m.producer(mean, 0, ("Pow", "Mul"), uses=1)
    x = square_of(m, square)
    normalised, inner = _normalised(m, root, x)
    scaled = m.user(normalised.output, "Mul")
    scale = scaled.inputs[1] if scaled.inputs[0] == normalised.output else scaled.inputs[0]
    array, shape = m.model.constant(scale or ""), m.model.value(x).shape
    fits = array is not None and shape is not None and array.shape == (shape[-1],)
    m.need(fits, f"{scale!r} is no constant of the normalised extent", scaled)
    dtypes = {m.model.value(name).dtype for name in (x, scale or "", scaled.output)}
    m.need(len(dtypes) == 1, "types differ between input, scale and result", scaled)
    node = Op("RMSNormalization", (x, scale), scaled.outputs, Attrs.of(axis=-1, epsilon=epsilon), name=root.name)
    return Replacement([square, mean, plus, root, *inner, normalised, scaled], [node])


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
