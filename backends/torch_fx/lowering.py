"""Build the `torch.fx` graph: one call per step, weights as parameters, bodies of control operators as submodules."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, TypeProto

from eopt.backends.torch_fx import capability, select, steps, train
from eopt.backends.torch_fx.steps import Array, Block, Step
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.node import Op

_DEFAULTS = {"ConstantOfShape": {"value": np.zeros(1, "f")}}
_UNSIGNED = ("uint16", "uint32", "uint64")


def lower(model: Model, device: str = "cpu", *, trainable: bool | Collection[str] = False) -> Any:
    """A `torch.fx.GraphModule`: positional inputs as in `model.feeds`, a tuple of outputs.

    `meta["kernels"]` says by operator which kernel runs and why, `meta["weight_names"]` which parameter is a weight.

    Args:
        model: as it is; values that steer an operator are best constant, but may be computed.
        device: where it runs; which kernels it gets is decided by what works there.
        trainable: the weights that get gradients, by name; True for all a trainer would touch (`train.learnable`).

    Raises:
        InputError: an operator, an attribute or an element type has no torch counterpart.
    """
    import torch

    names = train.learnable(model) if trainable is True else frozenset(trainable or ())
    plan = select.plan(model, capability.of(device), bool(trainable))
    block = steps.of_model(model, plan)
    lowering = Lowering(torch, block, model.opsets, frozenset(model.weights), names)
    module = lowering.module().to(device)
    for attribute in lowering.sparse:
        packed = torch.sparse.to_sparse_semi_structured(getattr(module, attribute))
        setattr(module, attribute, torch.nn.Parameter(packed, requires_grad=False))
    module.meta["kernels"] = lowering.chosen
    module.meta["weight_names"] = lowering.weight_names
    return module


class Lowering:
    """The graph under construction, and the fx node of every value computed so far."""

    def __init__(
        self, torch: Any, block: Block, opsets: Mapping[str, int], weights: frozenset[str], learnt: frozenset[str]
    ) -> None:
        from eopt.backends.torch_fx.kernels import KERNELS

        self.torch, self.block, self.kernels, self.opsets = torch, block, KERNELS, opsets
        self.weights, self.learnt = weights, learnt
        self.graph, self.root = torch.fx.Graph(), torch.nn.Module()
        self.values = {name: self.graph.placeholder(identifier(name)) for name in block.inputs}
        self.chosen: dict[str, steps.Choice] = {}
        self.weight_names: dict[str, str] = {}
        self.sparse: list[str] = []

    def module(self) -> Any:
        """All of it.

        Raises:
            InputError: something has no torch counterpart.
        """
        for step in self.block.steps:
            self._add(step)
        self.graph.output(tuple(self._value(name) for name in self.block.outputs))
        return self.torch.fx.GraphModule(self.root, self.graph)

    def _add(self, step: Step) -> None:
        kernel = self.kernels.get(step.choice.kernel)
        if kernel is None:
            raise InputError(f"{self._where(step.op)}: no torch kernel for {step.choice.kernel}")
        for name, array in step.constants.items():
            self._register(name, array)
            self.sparse += [self.values[name].target] if name in step.sparse else []
        inputs = tuple(
            self._host(name) if position in kernel.host else self._value(name)
            for position, name in enumerate(step.inputs)
        )
        wide = kernel.widen and any(self._type(name) in _UNSIGNED for name in step.inputs)
        function = _widened(kernel.function) if wide else kernel.function
        node = self._call(step.op, function, inputs, self._attributes(step, kernel.keywords))
        label = self._where(step.op)
        self.chosen[label if label not in self.chosen else f"{label}:{step.op.output}"] = step.choice
        if len(step.op.outputs) == 1:
            self.values[step.op.output] = node
            return
        for position, value in enumerate(step.op.outputs):
            if value.id:
                self.values[value.id] = self._call(step.op, operator.getitem, (node, position), {})

    def _call(self, op: Op, function: Any, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        name = identifier(op.name or op.op.lower())
        node = self.graph.create_node("call_function", function, inputs, attributes, name=name)
        path = self.block.path(op)
        node.meta = {"eopt_uid": op.uid, "eopt_op": op.op, "nn_module_stack": {path: (path.replace("/", "."), path)}}
        return node

    def _attributes(self, step: Step, known: frozenset[str]) -> dict[str, Any]:
        given = {**_DEFAULTS.get(step.choice.kernel, {}), **step.attributes}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise InputError(f"{self._where(step.op)}: {step.op.op} with {', '.join(unknown)} has no torch kernel")
        offered = {
            "outputs": len(step.op.outputs),
            "opset": self.opsets.get(step.op.domain, 0),
            "types": tuple(self._type(name) for name in step.inputs),
            "captured": tuple(self._value(name) for name in step.op.reads) if "captured" in known else (),
        }
        asked = {name: value for name, value in offered.items() if name in known}
        return {**{name: self._attribute(step.op, name, value) for name, value in given.items()}, **asked}

    def _attribute(self, op: Op, name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._attached(f"{op.name or op.op}_{name}", self._tensor(value))
        if isinstance(value, TypeProto):
            return None  # what an empty Optional could hold is nothing to torch
        if not isinstance(value, GraphProto):
            return value
        body = steps.of_body(value, op.reads, self.block, self._where(op))
        module = Lowering(self.torch, body, self.opsets, frozenset(), frozenset()).module()
        attribute = self._free(f"{op.name or op.op}_{name}")
        self.root.add_module(attribute, module)
        return self.graph.get_attr(attribute)

    def _value(self, name: str | None) -> Any:
        if name is None or name in self.values:
            return self.values[name] if name else None
        array = self.block.constant(name)
        if array is None:
            raise InputError(f"value {name!r}: neither computed nor a constant tensor; torch cannot run this model")
        self._register(name, array)
        return self.values[name]

    def _register(self, name: str, array: Array) -> None:
        tensor = self._tensor(array)
        if name not in self.weights or not tensor.is_floating_point():
            self.values[name] = self._attached(name, tensor)
            return
        attribute = self._free(name)
        parameter = self.torch.nn.Parameter(tensor, requires_grad=name in self.learnt)
        self.root.register_parameter(attribute, parameter)
        self.weight_names[attribute] = name
        self.values[name] = self.graph.get_attr(attribute)

    def _attached(self, name: str, tensor: Any) -> Any:
        attribute = self._free(name)
        self.root.register_buffer(attribute, tensor)
        return self.graph.get_attr(attribute)

    def _tensor(self, array: Array) -> Any:
        from eopt.backends.torch_fx.kernels.dtypes import tensor

        return tensor(array)

    def _free(self, name: str) -> str:
        attribute = identifier(name)
        while hasattr(self.root, attribute):
            attribute += "_"
        return attribute

    def _host(self, name: str | None) -> Any:
        """A Python value: a literal where it is constant, read from the device at run time where it is computed."""
        from eopt.backends.torch_fx.kernels.registry import on_host

        array = self.block.constant(name) if name else None
        if array is not None:
            return array.tolist()
        return None if name is None else self.graph.call_function(on_host, (self._value(name),))

    def _type(self, name: str | None) -> str | None:
        dtype = self.block.dtype(name) if name else None
        return None if dtype is None else str(dtype)

    def _where(self, op: Op) -> str:
        return "/".join(part for part in (self.block.path(op), op.name or f"{op.op}:{op.output}") if part)


def _widened(function: Any) -> Any:
    from eopt.backends.torch_fx.kernels.registry import widened

    def wide(*inputs: Any, **attributes: Any) -> Any:
        return widened(function, *inputs, **attributes)

    return wide


def identifier(name: str) -> str:
    """A Python name close to this one."""
    cleaned = "".join(character if character.isascii() and character.isalnum() else "_" for character in name)
    return cleaned if cleaned[:1].isalpha() else f"v{cleaned}"
