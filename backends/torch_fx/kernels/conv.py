"""Convolutions."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel
from eopt.ir.errors import InputError

Ints = tuple[int, ...]


def explicit_pads(x: Tensor, window: Ints, strides: Ints, dilations: Ints, pads: Ints, auto_pad: str) -> Ints:
    """Begins, then ends; SAME is what keeps ceil(extent / stride)."""
    if not auto_pad.startswith("SAME"):
        return pads or (0,) * (2 * len(window))
    begins, ends = [], []
    for extent, size, stride, dilation in zip(x.shape[2:], window, strides, dilations, strict=True):
        missing = max((-(-extent // stride) - 1) * stride + (size - 1) * dilation + 1 - extent, 0)
        small, large = missing // 2, missing - missing // 2
        begins.append(large if auto_pad == "SAME_LOWER" else small)
        ends.append(small if auto_pad == "SAME_LOWER" else large)
    return (*begins, *ends)


def torch_pads(begins: Ints, ends: Ints) -> list[int]:
    """In the order of `F.pad`: last dim first."""
    return [pad for pair in zip(reversed(begins), reversed(ends), strict=True) for pad in pair]


@kernel("Conv")
def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, strides: Ints = (), pads: Ints = (),
         dilations: Ints = (), group: int = 1, auto_pad: str = "NOTSET",
         kernel_shape: Ints = ()) -> Tensor:  # fmt: skip
    """1 to 3 spatial dims; unequal pads are made explicit."""
    rank = weight.dim() - 2
    if not 1 <= rank <= 3:
        raise InputError(f"Conv over {rank} spatial dims: torch has 1 to 3")
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    pads = explicit_pads(x, weight.shape[2:], strides, dilations, pads, auto_pad)
    begins, ends = pads[:rank], pads[rank:]
    if begins != ends:
        x, begins = F.pad(x, torch_pads(begins, ends)), (0,) * rank
    return (F.conv1d, F.conv2d, F.conv3d)[rank - 1](x, weight, bias, strides, begins, dilations, group)


@kernel("ConvTranspose")
def conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, strides: Ints = (), pads: Ints = (),
                   dilations: Ints = (), group: int = 1, auto_pad: str = "NOTSET", kernel_shape: Ints = (),
                   output_padding: Ints = (), output_shape: Ints = ()) -> Tensor:  # fmt: skip
    """The full result, then cut (or padded) to size; the bias comes last because padding has it too."""
    rank = weight.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    extra = output_padding or (0,) * rank
    full = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1](
        x, weight, None, strides, 0, 0, group, dilations
    )
    sizes = tuple(size + more for size, more in zip(full.shape[2:], extra, strict=True))
    if auto_pad.startswith("SAME") and not output_shape:
        output_shape = tuple(extent * stride for extent, stride in zip(x.shape[2:], strides, strict=True))
    if output_shape:
        total = [size - wanted for size, wanted in zip(sizes, output_shape[-rank:], strict=True)]
        halves = [cut // 2 if auto_pad == "SAME_UPPER" else cut - cut // 2 for cut in total]
        pads = (*halves, *(cut - half for cut, half in zip(total, halves, strict=True)))
    pads = pads or (0,) * (2 * rank)
    ends = tuple(more - pad for more, pad in zip(extra, pads[rank:], strict=True))
    y = F.pad(full, torch_pads(tuple(-pad for pad in pads[:rank]), ends))
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


@kernel("CausalConvWithState")
def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None, *,
                activation: str = "none", outputs: int = 1) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Depthwise over time, looking back only; the last inputs are the state of the next call."""
    back = weight.shape[-1] - 1
    longer = torch.cat((x.new_zeros(*x.shape[:-1], back) if past is None else past, x), -1)
    y = F.conv1d(longer, weight, bias, groups=x.shape[1])
    y = F.silu(y) if activation in ("silu", "swish") else y
    return y if outputs == 1 else (y, longer[..., longer.shape[-1] - back :])


@kernel("Col2Im", host=(1, 2))
def col2im(x: Tensor, extents: list[int], block: list[int], *, dilations: Ints = (), pads: Ints = (),
           strides: Ints = ()) -> Tensor:  # fmt: skip
    """Blocks summed into an image of any rank."""
    rank = len(extents)
    dilations, strides, pads = dilations or (1,) * rank, strides or (1,) * rank, pads or (0,) * (2 * rank)
    padded = [extent + pads[axis] + pads[axis + rank] for axis, extent in enumerate(extents)]
    steps = [
        (size - dilation * (edge - 1) - 1) // stride + 1
        for size, edge, dilation, stride in zip(padded, block, dilations, strides, strict=True)
    ]
    places = torch.zeros((), dtype=torch.int64, device=x.device)
    for axis in range(rank):
        inner = torch.arange(block[axis], device=x.device) * dilations[axis]
        outer = torch.arange(steps[axis], device=x.device) * strides[axis]
        at = inner.reshape(-1, *(1,) * (2 * rank - axis - 1)) + outer.reshape(-1, *(1,) * (rank - axis - 1))
        places = places * padded[axis] + at
    channels = x.shape[1] // prod(block)
    flat = x.new_zeros(x.shape[0], channels, prod(padded))
    flat = flat.index_add(2, places.reshape(-1), x.reshape(x.shape[0], channels, -1))
    cuts = [-pad for pad in torch_pads(pads[:rank], pads[rank:])]
    return F.pad(flat.reshape(x.shape[0], channels, *padded), cuts)
