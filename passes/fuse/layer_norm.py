"""Layer normalisation, written out, as one operator (Ba et al., https://arxiv.org/abs/1607.06450).

(x - mean(x)) / sqrt(mean((x - mean(x))^2) + e) * scale + bias,  over the last axis
"""

from __future__ import annotations

from eopt.ir.node import Attrs, Op
from eopt.passes.fuse.means import mean_over_last, square_of, with_epsilon
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("layer-norm", "Sqrt")
def layer_norm(m: Matcher, root: Op) -> Replacement:
    """Starts from the square root; scale and bias must be constants of the normalised extent."""
    m.only_used(root.output, 1, root)
    plus, epsilon, variance = with_epsilon(m, root)
    mean_op = mean_over_last(m, variance)
    square = m.producer(mean_op, 0, ("Pow", "Mul"), uses=1)
    centred_name = square_of(m, square)
    centred = m.model.producer(centred_name)
    m.need(centred is not None and centred.op == "Sub", "what is squared is no difference", square)
    assert centred is not None
    x = centred.inputs[0] or ""
    mean = m.producer(centred, 1, "ReduceMean", uses=1)
    mean_over_last(m, mean)
    m.need(mean.inputs[0] == x, "the mean is of another value", mean)
    divide = m.user(root.output, "Div")
    m.need(divide.inputs == (centred_name, root.output), "the root divides another value", divide)
    centred_users = {user.uid for user in m.model.users(centred_name)}
    m.need(centred_users == {square.uid, divide.uid}, "the centred value is used elsewhere", centred)
    scaled, scale = _affine(m, divide, "Mul")
    shifted, bias = _affine(m, scaled, "Add")
    extent = m.model.value(x).shape
    m.need(extent is not None, "the shape is unknown", centred)
    for name in (scale, bias):
        array = m.model.constant(name)
        fits = array is not None and extent is not None and array.shape == (extent[-1],)
        m.need(fits, f"{name!r} is no constant of the normalised extent", shifted)
    matched = [mean, centred, square, mean_op, plus, root, divide, scaled, shifted]
    attrs = Attrs.of(axis=-1, epsilon=epsilon)
    return Replacement(matched, [Op("LayerNormalization", (x, scale, bias), shifted.outputs, attrs, name=root.name)])


def _affine(m: Matcher, op: Op, kind: str) -> tuple[Op, str]:
    user = m.user(op.output, kind)
    other = user.inputs[1] if user.inputs[0] == op.output else user.inputs[0]
    return user, other or ""
