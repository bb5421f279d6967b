"""Recurrent layers, step by step: ONNX allows activations, clipping and gates coupled as torch's kernels do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel
from eopt.ir.errors import InputError

Names = tuple[str, ...]
Floats = tuple[float, ...]
State = tuple[Tensor, ...]
_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "affine": lambda x, a=1.0, b=0.0: a * x + b,
    "leakyrelu": lambda x, a=0.01: F.leaky_relu(x, a),
    "thresholdedrelu": lambda x, a=1.0: F.threshold(x, a, 0.0),
    "scaledtanh": lambda x, a=1.0, b=1.0: a * torch.tanh(b * x),
    "hardsigmoid": lambda x, a=0.2, b=0.5: torch.clamp(a * x + b, 0, 1),
    "elu": lambda x, a=1.0: F.elu(x, a),
}
_PARAMETERS = {"affine": 2, "leakyrelu": 1, "thresholdedrelu": 1, "scaledtanh": 2, "hardsigmoid": 2, "elu": 1}


@dataclass(frozen=True)
class _Layer:
    """One direction of a layer: its weights and functions."""

    weight: Tensor
    recurrence: Tensor
    bias: Tensor
    functions: tuple[Callable[[Tensor], Tensor], ...]
    peephole: Tensor | None = None
    clip: float = 0.0
    variant: int = 0

    def bounded(self, x: Tensor) -> Tensor:
        return torch.clamp(x, -self.clip, self.clip) if self.clip else x


def _bound(function: Callable[..., Tensor], given: Floats) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x, *given)


def _functions(names: Names, alphas: Floats, betas: Floats) -> list[Callable[[Tensor], Tensor]]:
    """Parameters are listed for the functions that take any, in order."""
    first, second = list(alphas), list(betas)
    made: list[Callable[[Tensor], Tensor]] = []
    for name in (name.lower() for name in names):
        if name not in _ACTIVATIONS:
            raise InputError(f"recurrent layer with activation {name!r}: no torch kernel")
        wanted = _PARAMETERS.get(name, 0)
        given = [pool.pop(0) for pool, needed in ((first, 1), (second, 2)) if pool and wanted >= needed]
        made.append(_bound(_ACTIVATIONS[name], tuple(given)))
    return made


def _rnn(layer: _Layer, x: Tensor, state: State) -> State:
    (f,) = layer.functions
    gates = x @ layer.weight.T + state[0] @ layer.recurrence.T + layer.bias.reshape(2, -1).sum(0)
    return (f(layer.bounded(gates)),)


def _gru(layer: _Layer, x: Tensor, state: State) -> State:
    f, g = layer.functions
    (h,), size = state, layer.recurrence.shape[-1]
    inputs, bias = x @ layer.weight.T + layer.bias[: 3 * size], layer.bias[3 * size :]
    z, r, new = inputs.split(size, -1)
    w_z, w_r, w_h = layer.recurrence.split(size)
    b_z, b_r, b_h = bias.split(size)
    z, r = f(layer.bounded(z + h @ w_z.T + b_z)), f(layer.bounded(r + h @ w_r.T + b_r))
    past = r * (h @ w_h.T + b_h) if layer.variant else (r * h) @ w_h.T + b_h
    return ((1 - z) * g(layer.bounded(new + past)) + z * h,)


def _lstm(layer: _Layer, x: Tensor, state: State) -> State:
    f, g, last = layer.functions
    h, c = state
    gates = x @ layer.weight.T + h @ layer.recurrence.T + layer.bias.reshape(2, -1).sum(0)
    i, o, forget, new = gates.chunk(4, -1)
    p_i, p_o, p_f = (0.0, 0.0, 0.0) if layer.peephole is None else layer.peephole.chunk(3, -1)
    i = f(layer.bounded(i + p_i * c))
    forget = 1 - i if layer.variant else f(layer.bounded(forget + p_f * c))
    c = forget * c + i * g(layer.bounded(new))
    return f(layer.bounded(o + p_o * c)) * last(c), c


def _run(
    cell: Callable[..., State], layer: _Layer, x: Tensor, lengths: Tensor | None, state: State
) -> tuple[Tensor, State]:
    """Over time; a sequence that has ended keeps its state and yields zeros."""
    outputs = []
    for step in range(x.shape[0]):
        new = cell(layer, x[step], state)
        if lengths is not None:
            live = (step < lengths).unsqueeze(-1)
            new, shown = tuple(torch.where(live, a, b) for a, b in zip(new, state, strict=True)), new[0] * live
        else:
            shown = new[0]
        state = new
        outputs.append(shown)
    return torch.stack(outputs), state


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Backwards in time, each sequence within its length."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(-1)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps).to(torch.int64)
    return x.gather(0, places.unsqueeze(-1).expand_as(x))


def _layers(
    cell: Callable[..., State], x: Tensor, weights: tuple[Tensor, Tensor, Tensor | None], lengths: Tensor | None,
    initial: tuple[Tensor | None, ...], peephole: Tensor | None, names: Names, alphas: Floats, betas: Floats,
    direction: str, layout: int, clip: float, variant: int, outputs: int,
) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
    """Both directions, with outputs Y (time, direction, batch, hidden) and the last states."""
    weight, recurrence, bias = weights
    count = weight.shape[0]
    x = x.transpose(0, 1) if layout else x
    size = recurrence.shape[-1]
    functions = _functions(names, alphas, betas)
    each = len(functions) // count
    ys, lasts = [], []
    for number in range(count):
        layer = _Layer(
            weight[number],
            recurrence[number],
            x.new_zeros(2 * weight.shape[1]) if bias is None else bias[number],
            tuple(functions[number * each : (number + 1) * each]),
            None if peephole is None else peephole[number],
            clip,
            variant,
        )
        state = tuple(
            x.new_zeros(x.shape[1], size) if one is None else (one[:, number] if layout else one[number])
            for one in initial
        )
        back = direction == "reverse" or number == 1
        y, last = _run(cell, layer, _turned(x, lengths) if back else x, lengths, state)
        ys.append(_turned(y, lengths) if back else y)
        lasts.append(last)
    y = torch.stack(ys, 1)
    states = [torch.stack(column, 1 if layout else 0) for column in zip(*lasts, strict=True)]
    y = y.permute(2, 0, 1, 3) if layout else y
    return y if outputs == 1 else (y, *states)[:outputs]


@kernel("RNN")
def rnn(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
        h: Tensor | None = None, *, activations: Names = (), activation_alpha: Floats = (),
        activation_beta: Floats = (), clip: float = 0.0,
        direction: str = "forward", hidden_size: int = 0, layout: int = 0, outputs: int = 1) -> object:  # fmt: skip
    """Elman."""
    names = activations or ("Tanh",) * w.shape[0]
    return _layers(_rnn, x, (w, r, b), lengths, (h,), None, names, activation_alpha, activation_beta, direction, layout,
                   clip, 0, outputs)  # fmt: skip


@kernel("GRU")
def gru(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
        h: Tensor | None = None, *, activations: Names = (), activation_alpha: Floats = (),
        activation_beta: Floats = (), clip: float = 0.0,
        direction: str = "forward", hidden_size: int = 0, layout: int = 0, linear_before_reset: int = 0,
        outputs: int = 1) -> object:  # fmt: skip
    """Gates in the order z, r, h."""
    names = activations or ("Sigmoid", "Tanh") * w.shape[0]
    return _layers(_gru, x, (w, r, b), lengths, (h,), None, names, activation_alpha, activation_beta, direction, layout,
                   clip, linear_before_reset, outputs)  # fmt: skip


@kernel("LSTM")
def lstm(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
         h: Tensor | None = None, c: Tensor | None = None, p: Tensor | None = None, *, activations: Names = (),
         activation_alpha: Floats = (), activation_beta: Floats = (), clip: float = 0.0, direction: str = "forward",
         hidden_size: int = 0, input_forget: int = 0, layout: int = 0, outputs: int = 1) -> object:  # fmt: skip
    """Gates in the order i, o, f, c, with peepholes."""
    names = activations or ("Sigmoid", "Tanh", "Tanh") * w.shape[0]
    return _layers(_lstm, x, (w, r, b), lengths, (h, c), p, names, activation_alpha, activation_beta, direction, layout,
                   clip, input_forget, outputs)  # fmt: skip
