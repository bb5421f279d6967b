"""Control flow: bodies are modules of their own, called eagerly. Each takes its inputs, then what it captures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.registry import kernel

Body = Callable[..., tuple[Any, ...]]
Values = tuple[Any, ...]


def _result(values: Values) -> Any:
    return values[0] if len(values) == 1 else values


@kernel("If")
def if_(condition: Tensor, *, then_branch: Body, else_branch: Body, captured: Values) -> Any:
    """One branch runs."""
    return _result((then_branch if bool(condition) else else_branch)(*captured))


@kernel("Loop")
def loop(trips: Tensor | None, condition: Tensor | None, *state: Any, body: Body, captured: Values) -> Any:
    """Until the count or the condition ends it; what a round yields beyond the state is stacked."""
    limit = None if trips is None else int(trips)
    going, count, rows = condition is None or bool(condition), 0, []
    device = next((x.device for x in (*state, *captured) if isinstance(x, Tensor)), None)
    while going and (limit is None or count < limit):
        number = torch.tensor(count, dtype=torch.int64, device=device)
        goes_on, *rest = body(number, torch.tensor(True, device=device), *state, *captured)
        state, going, count = tuple(rest[: len(state)]), bool(goes_on), count + 1
        rows.append(rest[len(state) :])
    stacked = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    return _result((*state, *stacked))


@kernel("Scan")
def scan(*inputs: Any, body: Body, captured: Values, num_scan_inputs: int, opset: int,
         scan_input_axes: tuple[int, ...] = (), scan_input_directions: tuple[int, ...] = (),
         scan_output_axes: tuple[int, ...] = (), scan_output_directions: tuple[int, ...] = (),
         directions: tuple[int, ...] = ()) -> Any:  # fmt: skip
    """State and sequences in, state and stacked outputs out; opset 8 has a batch and lengths in front."""
    if opset >= 9:
        return _result(_scanned(inputs, body, captured, num_scan_inputs, scan_input_axes, scan_input_directions,
                                scan_output_axes, scan_output_directions))  # fmt: skip
    rows = [
        _scanned(tuple(x[batch] for x in inputs[1:]), body, captured, num_scan_inputs, (), directions, (), ())
        for batch in range(inputs[1].shape[0])
    ]
    return _result(tuple(torch.stack(column) for column in zip(*rows, strict=True)))


def _scanned(inputs: Values, body: Body, captured: Values, count: int, axes: tuple[int, ...], turned: tuple[int, ...],
             out_axes: tuple[int, ...], out_turned: tuple[int, ...]) -> Values:  # fmt: skip
    state, sequences = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    moved = [x.movedim(axes[number] if axes else 0, 0) for number, x in enumerate(sequences)]
    moved = [x.flip(0) if turned and turned[number] else x for number, x in enumerate(moved)]
    rows = []
    for step in range(moved[0].shape[0]):
        results = body(*state, *(x[step] for x in moved), *captured)
        state = results[: len(state)]
        rows.append(results[len(state) :])
    outputs = []
    for number, column in enumerate(zip(*rows, strict=True)):
        ordered = reversed(column) if out_turned and out_turned[number] else column
        outputs.append(torch.stack(list(ordered)).movedim(0, out_axes[number] if out_axes else 0))
    return (*state, *outputs)


@kernel("SequenceMap")
def sequence_map(first: list[Any], *others: Any, body: Body, captured: Values) -> Any:
    """The body once per element; what is no sequence is the same every time."""
    rows = [
        body(item, *(other[place] if isinstance(other, list) else other for other in others), *captured)
        for place, item in enumerate(first)
    ]
    return _result(tuple(list(column) for column in zip(*rows, strict=True)))
