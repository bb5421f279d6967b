"""A convolution pads its own input: zeros that are put around it before are the same zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.passes.rewrite import Array, Matcher, Replacement, rule


@rule("pad-conv", "Conv", exempt=True)
def pad_conv(m: Matcher, conv: Op) -> Replacement:
    """Exempt from the gate: a tensor less is written and read, and padding inside of a convolution is free."""
    pad = m.producer(conv, 0, "Pad")
    m.need(pad.attrs.get("mode", "constant") == "constant", "it does not pad with a constant", pad)
    m.need(_zero(m, pad), "it does not pad with 0", pad)
    m.need(conv.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"), "it pads by the extents of its input", conv)
    before, after = _amounts(m, pad, m.constant(conv, 1).ndim)
    m.need((before >= 0).all() and (after >= 0).all(), "it cuts away", pad)
    m.need(not before[:2].any() and not after[:2].any(), "it pads samples or channels", pad)
    own = np.array(conv.attrs.get("pads") or [0] * 2 * (len(before) - 2)).reshape(2, -1)
    pads = own + np.stack([before[2:], after[2:]])
    others = {name: conv.attrs.get(name) for name in ("dilations", "group", "kernel_shape", "strides")}
    attrs = Attrs.of(**others, pads=pads.reshape(-1).tolist())
    fused = replace(conv, uid=0, attrs=attrs, inputs=(pad.inputs[0], *conv.inputs[1:]))
    return Replacement([conv], [fused])


def _zero(m: Matcher, pad: Op) -> bool:
    if len(pad.inputs) < 3 or not pad.inputs[2]:
        return True
    return not m.constant(pad, 2).any()


def _amounts(m: Matcher, pad: Op, rank: int) -> tuple[Array, Array]:
    """Elements in front of and behind every axis."""
    m.need(len(pad.inputs) > 1, "its amounts are an attribute, as before opset 11", pad)
    amounts = m.constant(pad, 1).reshape(2, -1)
    given = len(pad.inputs) > 3 and pad.inputs[3]
    axes = m.constant(pad, 3) if given else np.arange(rank)
    m.need(amounts.shape[1] == len(axes), f"it pads {amounts.shape[1]} axes of {len(axes)}", pad)
    full = np.zeros((2, rank), np.int64)
    full[:, axes % rank] = amounts
    return full[0], full[1]
