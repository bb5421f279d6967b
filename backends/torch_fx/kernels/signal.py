"""Fourier transforms and windows."""

from __future__ import annotations

from math import log10, pi

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.dtypes import torch_dtype
from eopt.backends.torch_fx.kernels.registry import kernel


def _complex(x: Tensor) -> Tensor:
    """The last dim holds real, or real and imaginary parts."""
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


@kernel("DFT", host=(1, 2))
def dft(x: Tensor, length: int | list[int] | None = None, place: int | None = None, *, axis: int | None = None,
        inverse: int = 0, onesided: int = 0, opset: int = 20) -> Tensor:  # fmt: skip
    """The axis is an attribute up to opset 19 (the second dim), an input from 20 on (the one before the last)."""
    along = place if place is not None else axis if axis is not None else (1 if opset < 20 else -2)
    along = along % x.dim()
    count = length[0] if isinstance(length, list) else length
    if inverse and onesided:
        return torch.fft.irfft(_complex(x), count, along).unsqueeze(-1)
    values = _complex(x)
    y = torch.fft.ifft(values, count, along) if inverse else torch.fft.fft(values, count, along)
    y = torch.view_as_real(y)
    return y.narrow(along, 0, y.shape[along] // 2 + 1) if onesided else y


@kernel("STFT", host=(1, 3))
def stft(x: Tensor, step: int, window: Tensor | None = None, length: int | None = None, *, onesided: int = 1) -> Tensor:
    """Frames of (batch, samples, 1 or 2), windowed and transformed."""
    size = length if length is not None else window.shape[0] if window is not None else x.shape[1]
    frames = _complex(x).unfold(1, size, step)
    y = torch.view_as_real(torch.fft.fft(frames if window is None else frames * window, dim=-1))
    return y[..., : size // 2 + 1, :] if onesided else y


def _window(size: int, periodic: int, dtype: int, weights: tuple[float, ...]) -> Tensor:
    """A sum of cosines."""
    angle = torch.arange(size, dtype=torch.float64) * (2 * pi / (size if periodic else size - 1))
    total = sum(weight * torch.cos(number * angle) for number, weight in enumerate(weights))
    return torch.as_tensor(total).to(torch_dtype(dtype))


@kernel("HannWindow", host=(0,))
def hann(size: int, *, periodic: int = 1, output_datatype: int = 1) -> Tensor:
    """(1 - cos) / 2."""
    return _window(size, periodic, output_datatype, (0.5, -0.5))


@kernel("HammingWindow", host=(0,))
def hamming(size: int, *, periodic: int = 1, output_datatype: int = 1) -> Tensor:
    """ONNX takes 25/46."""
    return _window(size, periodic, output_datatype, (25 / 46, 25 / 46 - 1))


@kernel("BlackmanWindow", host=(0,))
def blackman(size: int, *, periodic: int = 1, output_datatype: int = 1) -> Tensor:
    """0.42, 0.5, 0.08."""
    return _window(size, periodic, output_datatype, (0.42, -0.5, 0.08))


@kernel("MelWeightMatrix", host=(0, 1, 2, 3, 4))
def mel_weights(bins: int, length: int, rate: int, low: float, high: float, *, output_datatype: int = 1) -> Tensor:
    """Triangles, equally spaced on the mel scale, over the bins of a spectrum; edges are whole bins."""
    first, last = (2595 * log10(1 + edge / 700) for edge in (low, high))
    mels = torch.arange(bins + 2, dtype=torch.float64) * ((last - first) / (bins + 2)) + first
    edges = torch.floor((length + 1) * (700 * (10 ** (mels / 2595) - 1)) / rate)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    places = torch.arange(length // 2 + 1, dtype=torch.float64).unsqueeze(-1)
    rising = torch.where(centre == left, (places == centre).double(), (places - left) / (centre - left))
    falling = (right - places) / (right - centre)
    inside = (places >= left) & (places < right) | (places == centre)
    return torch.where(inside, torch.where(places <= centre, rising, falling), 0.0).to(torch_dtype(output_datatype))
