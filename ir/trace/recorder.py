"""Record a torch program as an operator tree while it runs on meta tensors: shapes and modules, no data, no export.

Every call that reaches a kernel is seen, so data stays out but nothing is left out; a program whose control flow
depends on data fails, since there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from eopt.ir import scopes
from eopt.ir.model import Model, OnnxEnvelope
from eopt.ir.node import Attrs, Op
from eopt.ir.scopes import Scope
from eopt.ir.trace.aten import Ints, Step, rule_for
from eopt.ir.types import DType, Value
from eopt.ir.weights import AbsentWeight, Weight, WeightStore, weight_of

OPSET = 25


class Recorder:
    """Operators, values and weights of one run.

    Args:
        module: whose parameters and buffers are the weights, and whose submodules are the scopes.
        inputs: the tensors the run is given, by name.
    """

    def __init__(self, torch: Any, module: Any, inputs: Mapping[str, Any]) -> None:
        self.torch, self.module = torch, module
        self.ops: list[Op] = []
        self.scopes: list[Scope] = []
        self.weights: dict[str, Weight] = {}
        self.inputs = inputs
        self._silent = False
        self._stack: list[tuple[str, str]] = []
        self._values: dict[int, tuple[Any, str]] = {}  # the tensor is kept: its id would be given away otherwise
        self._parameters = {id(tensor): name for name, tensor in (*module.named_buffers(), *module.named_parameters())}
        self._modules = {id(inner): name for name, inner in module.named_modules()}
        for name, tensor in inputs.items():
            self._values[id(tensor)] = (tensor, name)

    # -- running

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is run inside."""
        from torch.nn.modules import module as hooks
        from torch.utils._python_dispatch import TorchDispatchMode

        recorder = self

        class Mode(TorchDispatchMode):  # type: ignore[misc]
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                recorder._seen(func, args, kwargs or {}, result)
                return result

        entered = hooks.register_module_forward_pre_hook(lambda module, inputs: self._enter(module))
        left = hooks.register_module_forward_hook(lambda module, inputs, result: self._leave(module))
        try:
            with self.torch.no_grad(), Mode():
                yield
        finally:
            entered.remove()
            left.remove()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Leave out what is run inside; it is recorded as something else."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def _enter(self, module: Any) -> None:
        name = self._modules.get(id(module))
        if name is not None:
            self._stack.append((name, type(module).__name__))

    def _leave(self, module: Any) -> None:
        if id(module) in self._modules:
            self._stack.pop()

    # -- operators

    def _seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        if self._silent:
            return
        schema = func._schema
        arguments = {argument.name: argument.default_value for argument in schema.arguments}
        arguments.update(zip((argument.name for argument in schema.arguments), args, strict=False))
        arguments.update(kwargs)
        results = [item for item in _flat(result) if isinstance(item, self.torch.Tensor)]
        if not results:
            return
        name = func.name().rpartition("::")[2].partition(".")[0]
        rule = rule_for(name) if func.namespace == "aten" else None
        if rule is None:
            tensors = [item for item in _flat(list(arguments.values())) if isinstance(item, self.torch.Tensor)]
            self.emit(Step(name, tensors), results, domain=func.namespace)
            return
        step = rule(arguments, results[0])
        if step is None:
            self._values[id(results[0])] = (results[0], self._name(arguments["self"]))
        elif not self._is_view_of_weight(step, results):
            self.emit(step, results)

    def _is_view_of_weight(self, step: Step, results: Sequence[Any]) -> bool:
        """A view of a weight is that weight in another shape: nothing computes it at run time."""
        source = step.inputs[0] if step.inputs else None
        if step.op not in ("Reshape", "Transpose", "Identity", "Split") or not isinstance(source, self.torch.Tensor):
            return False
        name = self._name(source)
        if name not in self.weights:
            return False
        for position, result in enumerate(results):
            label = f"{name}[{position}]" if len(results) > 1 else name
            shaped = (
                label if tuple(result.shape) == self._shape(label) else f"{label}:{'x'.join(map(str, result.shape))}"
            )
            self._absent(shaped, result)
            self._values[id(result)] = (result, shaped)
        return True

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self.weights[name].header.dims) if name in self.weights else None

    def emit(self, step: Step, results: Sequence[Any], domain: str = "") -> None:
        """Append an operator with these result tensors."""
        uid = len(self.ops) + 1
        inputs = tuple(self._input(item, results[0]) for item in step.inputs)
        names = [f"{step.op.lower()}_{uid}" + (f".{number}" if number else "") for number in range(len(results))]
        outputs = tuple(self._value(name, tensor) for name, tensor in zip(names, results, strict=True))
        for name, tensor in zip(names, results, strict=True):
            self._values[id(tensor)] = (tensor, name)
        attrs = Attrs.of(**step.attrs)
        self.ops.append(Op(step.op, inputs, outputs, attrs, domain, uid, names[0], frozenset((uid,))))
        self.scopes.append(scopes.from_dotted([*self._stack, ("", "")]))

    def _input(self, item: Any, like: Any) -> str | None:
        if item is None:
            return None
        if isinstance(item, self.torch.Tensor):
            return self._name(item)
        if isinstance(item, Ints):
            return self._constant(np.array(item.values, np.int64))
        dtype = self._dtype(like)
        return self._constant(np.array(item, np.float32 if dtype is None or dtype.is_float else dtype.numpy))

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        name = f"constant:{array.dtype}:{array.tolist()}"
        self.weights.setdefault(name, weight_of(array))
        return name

    def _name(self, tensor: Any) -> str:
        """The value a tensor holds; one that appears from nowhere is a parameter, or a constant of the program."""
        if id(tensor) in self._values:
            return self._values[id(tensor)][1]
        name: str = self._parameters.get(id(tensor), f"constant_{len(self._values)}")
        self._absent(name, tensor)
        self._values[id(tensor)] = (tensor, name)
        return name

    def _absent(self, name: str, tensor: Any) -> None:
        value = self._value(name, tensor)
        self.weights.setdefault(name, AbsentWeight.of(value.dtype or DType.FLOAT32, tuple(tensor.shape)))

    def _value(self, name: str, tensor: Any) -> Value:
        return Value(name, self._dtype(tensor), tuple(tensor.shape))

    def _dtype(self, tensor: Any) -> DType | None:
        name = str(tensor.dtype).removeprefix("torch.").replace("_", "")
        return DType(name) if name in DType._value2member_map_ else None

    # -- the model

    def model(self, outputs: Mapping[str, Any]) -> Model:
        """What was recorded, with these tensors as graph outputs; operators no output needs are left out."""
        root = scopes.grow(self.ops, self.scopes, len(self.ops) + 1, type(self.module).__name__)
        skeleton = ModelProto(ir_version=13, opset_import=[helper.make_opsetid("", OPSET)])
        skeleton.graph.name = type(self.module).__name__
        ends = tuple(self._value(self._name(tensor), tensor) for tensor in outputs.values())
        feeds = tuple(self._value(name, tensor) for name, tensor in self.inputs.items())
        opsets = {"": OPSET} | {op.domain: 1 for op in self.ops if op.domain}
        return Model(root, feeds, ends, WeightStore(self.weights), OnnxEnvelope(skeleton), opsets).swept()


def _flat(item: Any) -> list[Any]:
    if isinstance(item, list | tuple):
        return [leaf for part in item for leaf in _flat(part)]
    return [item]
