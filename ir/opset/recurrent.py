"""Recurrent networks: two products per gate and step, over the input and over the state.

Flops are 2 x steps x batch x gates x hidden x (input + hidden) x directions (https://doi.org/10.1162/neco.1997.9.8.1735);
the pointwise part of a step, about 70 operations per hidden unit, is left out: vector units do it. Sequences count with
the full length. The state's product has to wait for the step before, so its weights are used again at every step.
"""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Unit, Work, declare, traffic
from eopt.ir.opset.shared import contracted, mapped, wholes
from eopt.ir.types import DType

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4, "DynamicQuantizeLSTM": 4}


def _work(view: OpView) -> Work:
    """2 x steps x batch x gates x hidden x (input + hidden) x directions."""
    x, weight, state_weight = view.input(0), view.input(1), view.input(2)
    steps, batch = (x.shape[1], x.shape[0]) if view.attrs.get("layout", 0) else (x.shape[0], x.shape[1])
    directions, hidden = weight.shape[0], _hidden(view)
    flops = 2.0 * steps * batch * _GATES[view.op] * hidden * (x.shape[2] + hidden) * directions
    read, written = traffic(view)
    again = max(0, steps - 1) * state_weight.nbytes, state_weight.nbytes / max(1, directions)
    dtype = DType.INT8 if view.op.startswith("Dynamic") else x.dtype
    return Work(flops, read, written, Unit.MATRIX, dtype, *again)


def _hidden(view: OpView) -> int:
    """Units of the state; every result has them as its last axis."""
    return view.outputs[0].shape[-1]


def _axes(view: OpView) -> tuple[Tie, ...]:
    """Sequences of the batch are independent, inputs are summed over. Gates lie one behind the other in the weights, so
    the units of a state cannot be named."""
    late = 0 if view.attrs.get("layout", 0) else 1  # the batch is the first axis, or the one before the last
    lengths = [("x4", 0, 1)] if view.optional(4) else []
    states = [(f"x{n}", late, 1) for n in (5, 6) if view.optional(n)]
    results = [(f"y{n}", len(y.shape) - 2 if late else 0, 1) for n, y in enumerate(view.outputs)]
    return wholes(view, [mapped(("x0", late, 1), *lengths, *states, *results), contracted(("x0", 2, 1), ("x1", 2, 1))])


def _quantized_axes(view: OpView) -> tuple[Tie, ...]:
    """As LSTM; its weights are stored transposed."""
    results = [(f"y{n}", len(y.shape) - 2, 1) for n, y in enumerate(view.outputs)]
    return wholes(view, [mapped(("x0", 1, 1), *results)])


declare(["RNN", "GRU", "LSTM"], _work, _axes)
declare(["DynamicQuantizeLSTM"], _work, _quantized_axes, domain="com.microsoft")
