"""Lower the operator tree to a `torch.fx.GraphModule` that computes the same, on any torch device."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.node import Op

HOST_INPUTS = {
    "Reshape": (1,),
    "Expand": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Pad": (1, 3),
    "Tile": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "ReduceMax": (1,),
    "ConstantOfShape": (0,),
    "Clip": (1, 2),
}
"""Inputs that steer a kernel instead of flowing through it: passed as Python numbers, never as device tensors."""


def lower(model: Model, device: str = "cpu") -> Any:
    """A `torch.fx.GraphModule`: positional inputs as in `model.feeds`, a tuple of outputs; weights are parameters.

    Raises:
        InputError: an operator has no torch kernel here, or a steering input is not constant.
    """
    import torch

    lowering = _Lowering(torch, model)
    for op in model.leaves():
        if op.op != "Constant":
            lowering.add(op)
    return lowering.finish().to(device)


class _Lowering:
    """The graph under construction, and the fx node of every value computed so far."""

    def __init__(self, torch: Any, model: Model) -> None:
        from eopt.backends.torch_fx.kernels import KERNELS

        self.torch, self.model, self.kernels = torch, model, KERNELS
        self.graph, self.root = torch.fx.Graph(), torch.nn.Module()
        self.values = {feed.id: self.graph.placeholder(_identifier(feed.id)) for feed in model.feeds}

    def add(self, op: Op) -> None:
        """Append the kernel of an operator."""
        kernel = self.kernels.get(f"{op.domain}.{op.op}" if op.domain else op.op)
        if kernel is None:
            raise InputError(f"{self._where(op)}: no torch kernel for {op.domain or 'onnx'}.{op.op}")
        steering = HOST_INPUTS.get(op.op, ())
        inputs = [
            self._host(op, position) if position in steering else self._value(name)
            for position, name in enumerate(op.inputs)
        ]
        result = self.graph.call_function(kernel, tuple(inputs), {**op.attrs, "outputs": len(op.outputs)})
        if len(op.outputs) == 1:
            self.values[op.output] = result
            return
        for position, value in enumerate(op.outputs):
            self.values[value.id] = self.graph.call_function(operator.getitem, (result, position))

    def finish(self) -> Any:
        """The module."""
        self.graph.output(tuple(self._value(value.id) for value in self.model.outputs))
        return self.torch.fx.GraphModule(self.root, self.graph)

    def _value(self, name: str | None) -> Any:
        if name is None or name in self.values:
            return self.values[name] if name else None
        array = self.model.constant(name)
        if array is None:
            raise InputError(f"value {name!r}: neither computed nor constant; torch cannot run this model")
        tensor = self.torch.from_numpy(np.array(array))
        attribute = f"w{len(self.values)}_{_identifier(name)}"
        if tensor.is_floating_point():
            self.root.register_parameter(attribute, self.torch.nn.Parameter(tensor, requires_grad=False))
        else:
            self.root.register_buffer(attribute, tensor)
        self.values[name] = self.graph.get_attr(attribute)
        return self.values[name]

    def _host(self, op: Op, position: int) -> Any:
        name = op.inputs[position]
        array = self.model.constant(name) if name else None
        if name is not None and array is None:
            raise InputError(
                f"{self._where(op)}: input {position} is computed at run time; fix the symbolic dims of the model and "
                "simplify it first"
            )
        return None if array is None else array.tolist()

    def _where(self, op: Op) -> str:
        return f"{self.model.path(op.uid)}/{op.name or op.op}"


def _identifier(name: str) -> str:
    cleaned = "".join(character if character.isalnum() else "_" for character in name)
    return cleaned if cleaned[:1].isalpha() else f"v{cleaned}"
