"""Root-mean-square normalisation, written out, as one operator (Zhang and Sennrich, https://arxiv.org/abs/1910.07467).

x / sqrt(mean(x^2) + e) * scale,  over the last axis
"""

from __future__ import annotations

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.passes.fuse.means import input_of, mean_over_last, normalised, square_of, with_epsilon
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("rms-norm", "Sqrt")
def rms_norm(m: Matcher, root: Op) -> Replacement:
    """Starts from the square root; x, the reciprocal and the scale are factors in any order and nesting.

    A scale of ones is often folded away before; the operator needs one, so it is put back.
    """
    plus, epsilon, mean = with_epsilon(m, root)
    mean_over_last(m, mean)
    square = m.producer(mean, 0, ("Pow", "Mul"), uses=1)
    x, extent = input_of(m, square_of(m, square), square)
    found = normalised(m, root, x.id, extent)
    result = m.model.value(found.last.output)
    m.need((result.dtype, result.shape) == (x.dtype, x.shape), "type or shape differ between input and result", root)
    weights, scale = {}, found.scale
    if scale is None:
        assert x.dtype is not None
        scale = m.model.fresh(f"{found.last.output}_scale")
        weights[scale] = np.ones((extent,), x.dtype.numpy)
    attrs = Attrs.of(axis=-1, epsilon=epsilon)
    node = Op("RMSNormalization", (x.id, scale), found.last.outputs, attrs, name=root.name)
    return Replacement([square, mean, *plus, root, *found.ops], [node], weights)
