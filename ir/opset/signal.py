"""Fourier transforms and images. A transform of n points takes 5 n log2 n operations, of real data half as many."""

from __future__ import annotations

from math import ceil, log2, prod

from eopt.ir.ops import OpView, Tie, Work, declare
from eopt.ir.opset.shared import NEVER, Again, before_opset, constant, fft_flops, kept, mapped, vector, wholes

_PIXEL = 12  # per sample of a JPEG: 544 operations for an inverse 8x8 transform (AAN), then colours (about 3)


def _dft_axis(view: OpView) -> int | None:
    """The transformed axis; None while it is computed at run time."""
    rank, given = len(view.input(0).shape), constant(view.optional(2))
    if view.optional(2) and given is None:
        return None
    old = view.attrs.get("axis", 1) if "axis" in view.attrs or before_opset(view, 20) else -2
    return int(given[0] if given else old) % rank


def _stages(points: int, count: float, bits: int, real: bool) -> Again:
    """Each of log2 n stages reads and writes a transform's data; the first and last are the compulsory traffic."""
    row = points * (1 if real else 2) * bits / 8
    return (count * 2 * row * max(0, ceil(log2(points)) - 1), row) if points > 1 else NEVER


def _dft(view: OpView) -> Work:
    """5 n log2 n per transform, 2.5 n log2 n when input or result is real (http://www.fftw.org/speed)."""
    x, y, axis = view.input(0), view.outputs[0], _dft_axis(view)
    if axis is None:  # the longest is a bound: the same elements in fewer, longer transforms
        axis = max(range(len(x.shape) - 1), key=x.shape.__getitem__)
    length = constant(view.optional(1))
    points = int(length[0]) if length else max(x.shape[axis], y.shape[axis])
    real = x.shape[-1] == 1 or y.shape[-1] == 1
    count = prod(extent for n, extent in enumerate(x.shape[:-1]) if n != axis)
    return vector(view, count * fft_flops(points, real), again=_stages(points, count, x.dtype.bits, real))


def _stft(view: OpView) -> Work:
    """A window and a transform per frame."""
    signal, window, y = view.input(0), view.optional(2), view.outputs[0]
    length = constant(view.optional(3))
    onesided = view.attrs.get("onesided", 1)
    bins = 2 * (y.shape[2] - 1) if onesided else y.shape[2]
    points = window.shape[0] if window else int(length[0]) if length else bins
    real = len(signal.shape) < 3 or signal.shape[-1] == 1
    frames = y.shape[0] * y.shape[1]
    windowed = points * (1 if real else 2) if window else 0
    again = max(0.0, frames * points * (1 if real else 2) - signal.numel) * signal.dtype.bits / 8
    held = points * (1 if real else 2) * signal.dtype.bits / 8
    return vector(view, frames * (fft_flops(points, real) + windowed), again=(again, held))


def _real_transform(view: OpView) -> Work:
    """2.5 n log2 n per transform, n the points of the last `signal_ndim` axes of the real side."""
    real = view.input(0) if view.op == "Rfft" else view.outputs[0]
    points = prod(real.shape[len(real.shape) - view.attrs.get("signal_ndim", 1) :])
    count = real.numel / points
    return vector(view, count * fft_flops(points, True), again=_stages(points, count, real.dtype.bits, True))


def _decode(view: OpView) -> Work:
    """About 12 operations per sample: inverse transform and colours; entropy decoding depends on the data."""
    y = view.outputs[0]
    return vector(view, _PIXEL * y.numel, y.dtype)


def _dft_axes(view: OpView) -> tuple[Tie, ...]:
    rank, axis = len(view.input(0).shape), _dft_axis(view)
    return kept(view, range(rank) if axis is None else [axis, rank - 1])


def _signals_axes(view: OpView) -> tuple[Tie, ...]:
    return wholes(view, [mapped(("x0", 0, 1), ("y0", 0, 1))])


def _leading_axes(view: OpView) -> tuple[Tie, ...]:
    """Axes in front of the transformed ones are independent."""
    x, y = view.input(0).shape, view.outputs[0].shape
    free = min(len(x), len(y)) - view.attrs.get("signal_ndim", 1)
    return wholes(view, (mapped(("x0", n, 1), ("y0", n, 1)) for n in range(free)))


declare(["DFT"], _dft, _dft_axes)
declare(["STFT"], _stft, _signals_axes)
declare(["Rfft", "Irfft"], _real_transform, _leading_axes, domain="com.microsoft")
declare(["ImageDecoder"], _decode)
