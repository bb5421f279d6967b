"""Convolutions. Flops are 2 x outputs x (input channels / groups) x kernel points."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tensor, Tie, Trait, Unit, Work, declare, traffic
from eopt.ir.opset.shared import Again, mapped, panels, wholes
from eopt.ir.types import DType

Member = tuple[str, int, int]


def filter_port(view: OpView) -> int:
    """Position of the weights."""
    return 3 if view.op == "QLinearConv" else 1


def _conv(view: OpView) -> Work:
    """2 x elements of the result x (input channels / groups) x points of the kernel."""
    x, weight = view.input(0), view.input(filter_port(view))
    read, written = traffic(view)
    flops = 2.0 * view.outputs[0].numel * prod(weight.shape[1:])
    dtype = x.dtype if x.dtype.is_float else DType.INT8
    return Work(flops, read, written, _unit(view, weight.shape), dtype, *implicit_product(x, weight, view.outputs[0]))


def implicit_product(x: Tensor, weight: Tensor, y: Tensor) -> Again:
    """What the implicit matrix product of pixels and filters moves again: the filters for each panel of pixels, or the
    image for each panel of filters."""
    channels = max(1, weight.shape[0])
    return panels(y.numel // channels, channels, x.nbytes, weight.nbytes)


def _unit(view: OpView, weight: tuple[int, ...]) -> Unit:
    """A depthwise kernel reduces over a few points only: no tile for a matrix unit, so vector units do it."""
    per_group = weight[-1 if view.op.startswith("Nhwc") else 1]
    return Unit.VECTOR if view.attrs.get("group", 1) > 1 and per_group == 1 else Unit.MATRIX


def _conv_transpose(view: OpView) -> Work:
    """Every input element is multiplied with the whole kernel of its group."""
    x, weight = view.input(0), view.input(1)
    read, written = traffic(view)
    again = panels(x.numel // max(1, weight.shape[0]), weight.shape[0], x.nbytes, weight.nbytes)
    return Work(2.0 * x.numel * prod(weight.shape[1:]), read, written, Unit.MATRIX, x.dtype, *again)


def _axes(view: OpView) -> tuple[Tie, ...]:
    port = filter_port(view)
    per_channel = (4, 5, 8) if port == 3 else (2,)
    return convolution_axes(view, 1, per_channel)


def _fused_axes(view: OpView) -> tuple[Tie, ...]:
    """The fourth input is added to the result, so its axes go with it."""
    return convolution_axes(view, 1, (2,), added=3)


def _last_axes(view: OpView) -> tuple[Tie, ...]:
    """Channels last, also in the weights."""
    return convolution_axes(view, len(view.input(0).shape) - 1, (2,), added=3)


def _quantized_axes(view: OpView) -> tuple[Tie, ...]:
    """Channels may be the last axis of image and result; the weights keep theirs."""
    last = bool(view.attrs.get("channels_last", 0))
    return convolution_axes(view, len(view.input(0).shape) - 1 if last else 1, (4, 5, 8), own_layout=last)


def convolution_axes(
    view: OpView, channel: int, per_channel: tuple[int, ...], added: int = 0, own_layout: bool = False
) -> tuple[Tie, ...]:
    """Images, output channels with their filters, input channels summed over; with groups, one class of groups.

    Args:
        channel: axis of the channels in image and result, and of the input channels in the weights.
        per_channel: inputs with one value per output channel: bias, scales.
        added: position of an input of the result's shape, 0 for none.
        own_layout: the weights have their input channels on axis 1 whatever the image has.
    """
    port = f"x{filter_port(view)}"
    x, y = view.input(0), view.outputs[0]
    inner = 1 if own_layout else channel
    group = view.attrs.get("group", 1)
    given = [(number, view.optional(number)) for number in per_channel]
    beside = [f"x{number}" for number, tensor in given if tensor and tensor.shape == (y.shape[channel],)]
    results = ["y0", *([f"x{added}"] if added and view.optional(added) else [])]
    images = mapped(("x0", 0, 1), *((result, 0, 1) for result in results))
    outputs = [(port, 0), *((result, channel) for result in results), *((name, 0) for name in beside)]
    if group == 1:
        filters = mapped(*((name, axis, 1) for name, axis in outputs))
        return wholes(view, [images, filters, Tie((("x0", channel, 1), (port, inner, 1)), Role.CONTRACT)])
    # One position of the class is a group: its input channels and its output channels go together.
    per_in, per_out = x.shape[channel] // group, y.shape[channel] // group
    groups = mapped(("x0", channel, per_in), *((name, axis, per_out) for name, axis in outputs))
    return wholes(view, [images, groups])


def _transposed_axes(view: OpView) -> tuple[Tie, ...]:
    """Weights hold input channels first, then output channels of a group."""
    x, y, group = view.input(0), view.outputs[0], view.attrs.get("group", 1)
    number = 3 if view.op == "ConvTransposeWithDynamicPads" else 2
    bias: list[Member] = [(f"x{number}", 0, y.shape[1] // group)] if view.optional(number) else []
    images = mapped(("x0", 0, 1), ("y0", 0, 1))
    if group == 1:
        outputs = mapped(("x1", 1, 1), ("y0", 1, 1), *((name, axis, 1) for name, axis, _ in bias))
        return wholes(view, [images, outputs, Tie((("x0", 1, 1), ("x1", 0, 1)), Role.CONTRACT)])
    per_in = x.shape[1] // group
    return wholes(view, [images, mapped(("x0", 1, per_in), ("x1", 0, per_in), ("y0", 1, y.shape[1] // group), *bias)])


_TRAITS = (Trait.CONTRACTION,)
_MICROSOFT = "com.microsoft"
declare(["Conv", "ConvInteger", "QLinearConv"], _conv, _axes, _TRAITS)
declare(["ConvTranspose"], _conv_transpose, _transposed_axes, _TRAITS)
declare(["FusedConv"], _conv, _fused_axes, _TRAITS, _MICROSOFT)
declare(["NhwcConv", "NhwcFusedConv"], _conv, _last_axes, _TRAITS, _MICROSOFT)
declare(["QLinearConv"], _conv, _quantized_axes, _TRAITS, _MICROSOFT)
declare(["ConvTransposeWithDynamicPads"], _conv_transpose, _transposed_axes, _TRAITS, _MICROSOFT)
