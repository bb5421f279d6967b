"""Convolutions of ResNets, depthwise and of 1 x 1, by cuDNN."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.gpu.cases.base import FIRST, SECOND, THIRD, Call, Case, label, normal, tf32_or_ieee

# name, batch, channels in and out, size of the picture, kernel, stride, groups, rank
SHAPES = (
    ("resnet", 64, 128, 128, 28, 3, 1, 1, FIRST), ("pointwise", 64, 256, 1024, 14, 1, 1, 1, FIRST),
    ("depthwise", 64, 256, 256, 28, 3, 1, 256, FIRST), ("stem", 64, 3, 64, 224, 7, 2, 1, SECOND),
    ("resnet", 64, 64, 64, 56, 3, 1, 1, SECOND), ("resnet", 64, 512, 512, 7, 3, 1, 1, SECOND),
    ("resnet", 1, 128, 128, 28, 3, 1, 1, SECOND), ("resnet", 64, 256, 256, 28, 3, 2, 1, THIRD),
    ("pointwise", 64, 64, 256, 56, 1, 1, 1, THIRD), ("pointwise", 8, 1024, 256, 14, 1, 1, 1, THIRD),
    ("depthwise", 64, 96, 96, 112, 3, 2, 96, THIRD), ("grouped", 64, 512, 512, 14, 3, 1, 32, THIRD),
)  # fmt: skip
QUICK = (("resnet", 1, 8, 8, 8, 3, 1, 1, FIRST), ("depthwise", 1, 8, 8, 8, 3, 1, 8, FIRST),
         ("pointwise", 1, 8, 16, 8, 1, 1, 1, FIRST))  # fmt: skip
FORMATS = (("float16", ""), ("float32", "tf32"), ("float32", "ieee"), ("bfloat16", ""))


def cases(quick: bool) -> Iterator[Case]:
    """The convolutions; of the first rank all formats of the first shape, and float16 of the others."""
    shapes = QUICK if quick else SHAPES
    for place, shape in enumerate(shapes):
        for dtype, math in FORMATS:
            aside = bool(place) and dtype != "float16"
            yield _conv(*shape[:-1], dtype, math, max(shape[-1], SECOND) if aside else shape[-1])


def _conv(
    kind: str, batch: int, read: int, made: int, size: int, window: int, stride: int, groups: int,
    dtype: str, math: str, rank: int,
) -> Case:  # fmt: skip
    pad = window // 2

    def make(torch: Any, device: str) -> Call:
        x, w = (normal(torch, device, dtype, *shape) for shape in shapes)
        if dtype != "float32":  # cuDNN's tensor-core kernels want channels last
            x, w = (tensor.to(memory_format=torch.channels_last) for tensor in (x, w))
        return partial(torch.nn.functional.conv2d, x, w, None, stride, pad, groups=groups)

    shapes = [[batch, read, size, size], [made, read // groups, window, window]]
    attrs = {"group": groups, "pads": [pad] * 4, "strides": [stride] * 2}
    asked = {"op": "Conv", "inputs": shapes, "dtype": dtype, "math": math, "attrs": attrs}
    extents = label(batch, read, made, size, window, stride, groups)
    name = "/".join(filter(None, ("conv", kind, dtype, math, extents)))
    return Case(name, asked, make, rank, library="cudnn", around=tf32_or_ieee(math))
