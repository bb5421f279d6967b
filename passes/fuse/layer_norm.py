"""Layer normalisation, written out, as one operator (Ba et al., https://arxiv.org/abs/1607.06450).

(x - mean(x)) / sqrt(mean((x - mean(x))^2) + e) * scale + bias,  over the last axis
"""

from __future__ import annotations

from eopt.ir.node import Attrs, Op
from eopt.passes.fuse.means import input_of, mean_over_last, normalised, square_of, with_epsilon
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
    if centred is None or centred.op != "Sub":
        m.miss("what is squared is no difference", square)
    x, extent = input_of(m, centred.inputs[0] or "", centred)
    mean = m.producer(centred, 1, "ReduceMean", uses=1)
    mean_over_last(m, mean)
    m.need(mean.inputs[0] == x.id, "the mean is of another value", mean)
    found = normalised(m, root, centred_name, extent)
    inside = {op.uid for op in (square, *found.ops)}
    users = {user.uid for user in m.model.users(centred_name)}
    m.need(users <= inside and not m.model.is_output(centred_name), "the centred value is used elsewhere", centred)
    if found.scale is None:
        m.miss("no constant of the normalised extent scales it", found.last)
    shifted = m.user(found.last.output, "Add")
    bias = shifted.inputs[1] if shifted.inputs[0] == found.last.output else shifted.inputs[0]
    array = m.model.constant(bias or "")
    fits = array is not None and array.shape == (extent,)
    m.need(fits, f"{bias!r} is no constant of the normalised extent", shifted)
    result = m.model.value(shifted.output)
    m.need((result.dtype, result.shape) == (x.dtype, x.shape), "type or shape differ between input and result", shifted)
    matched = [mean, centred, square, mean_op, *plus, root, *found.ops, shifted]
    attrs = Attrs.of(axis=-1, epsilon=epsilon)
    operands = (x.id, found.scale, bias)
    return Replacement(matched, [Op("LayerNormalization", operands, shifted.outputs, attrs, name=root.name)])
