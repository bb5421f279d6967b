"""Deformable convolution: sampled where the offsets say, then one product."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel

Ints = tuple[int, ...]


@kernel("DeformConv")
def deform_conv(x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None, *,
                dilations: Ints = (1, 1), group: int = 1, kernel_shape: Ints = (), offset_group: int = 1,
                pads: Ints = (0, 0, 0, 0), strides: Ints = (1, 1)) -> Tensor:  # fmt: skip
    """Two spatial dims; outside of the image is zero."""
    batch, channels, height, width = x.shape
    rows, columns = weight.shape[2:]
    taps, (out_h, out_w) = rows * columns, offset.shape[2:]
    moves = offset.reshape(batch, offset_group, taps, 2, out_h, out_w)
    tap = torch.arange(taps, device=x.device).reshape(-1, 1, 1)
    at_h = torch.arange(out_h, device=x.device).reshape(-1, 1) * strides[0] - pads[0] + tap // columns * dilations[0]
    at_w = torch.arange(out_w, device=x.device) * strides[1] - pads[1] + tap % columns * dilations[1]
    y, z = at_h + moves[:, :, :, 0], at_w + moves[:, :, :, 1]
    grid = torch.stack((2 * z / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), -1)
    images = x.reshape(batch * offset_group, channels // offset_group, height, width)
    taken = F.grid_sample(images, grid.reshape(batch * offset_group, taps * out_h, out_w, 2), align_corners=True)
    taken = taken.reshape(batch, offset_group, -1, taps, out_h, out_w)
    if mask is not None:
        taken = taken * mask.reshape(batch, offset_group, 1, taps, out_h, out_w)
    parts = taken.reshape(batch, group, channels // group * taps, out_h * out_w)
    result = weight.reshape(1, group, weight.shape[0] // group, -1) @ parts
    result = result.reshape(batch, -1, out_h, out_w)
    return result if bias is None else result + bias.reshape(-1, 1, 1)
