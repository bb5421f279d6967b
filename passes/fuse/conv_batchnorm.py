"""Convolution and batch normalisation are one convolution.

    s (W x + b - m) / sqrt(v + e) + t  =  (W s / sqrt(v + e)) x  +  (b - m) s / sqrt(v + e) + t

with one factor for each output channel, computed in float64.
"""

from __future__ import annotations

import numpy as np

from eopt.ir.node import Op
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("conv-batchnorm", "BatchNormalization", exempt=True)
def conv_batchnorm(m: Matcher, norm: Op) -> Replacement:
    """Exempt from the gate: it folds constants and only ever removes work."""
    m.need(len(norm.outputs) == 1 and not norm.attrs.get("training_mode", 0), "it computes statistics", norm)
    conv = m.producer(norm, 0, "Conv", uses=1)
    scale, shift, mean, variance = (m.constant(norm, port).astype(np.float64) for port in range(1, 5))
    weight = m.constant(conv, 1)
    bias = m.constant(conv, 2).astype(np.float64) if len(conv.inputs) > 2 and conv.inputs[2] else np.zeros_like(mean)
    m.need(len(scale) == len(weight), f"{len(scale)} channels are normalised, {len(weight)} are computed", norm)
    spread = variance + norm.attrs.get("epsilon", 1e-5)
    m.need(np.isfinite(spread).all() and (spread > 0).all(), "a variance is negative or not finite", norm)
    factor = scale / np.sqrt(spread)
    folded = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    names = m.model.fresh(f"{conv.inputs[1]}_bn"), m.model.fresh(f"{norm.output}_bias")
    weights = {
        names[0]: folded.astype(weight.dtype),
        names[1]: ((bias - mean) * factor + shift).astype(weight.dtype),
    }
    fused = Op("Conv", (conv.inputs[0], *names), norm.outputs, conv.attrs, name=conv.name)
    return Replacement([conv, norm], [fused], weights)
