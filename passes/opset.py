"""Raise the operator set of a model where only additions lie between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnx import helper

from eopt.ir.model import Model
from eopt.ir.node import Op

NEWEST = 23

# Operators whose meaning or signature changed incompatibly, and in which version; every other change between 13 and 23
# adds types or optional attributes (https://github.com/onnx/onnx/blob/main/docs/Changelog.md).
_BREAKING = {
    **{f"Reduce{name}": 18 for name in "Mean Max Min Prod L1 L2 SumSquare LogSum LogSumExp".split()},
    "ReduceSum": 13,
    "Softmax": 13,
    "LogSoftmax": 13,
    "Squeeze": 13,
    "Unsqueeze": 13,
    "Split": 18,
    "Pad": 18,
    "Resize": 19,
    "AveragePool": 19,
    "GridSample": 20,
    "DFT": 20,
    "GroupNormalization": 21,
    "Upsample": 10,
    "BatchNormalization": 15,
    "Dropout": 12,
    "Clip": 11,
    "TopK": 11,
    "Scan": 9,
}
# These changed in form too, but models that do not use the part that changed read the same.
_UNCHANGED_IF: dict[str, Callable[[Op], bool]] = {
    "AveragePool": lambda op: not op.attrs.get("ceil_mode", 0),
    "Split": lambda op: len(op.inputs) > 1 and op.inputs[1] is not None,
    "Pad": lambda op: True,
    "Resize": lambda op: "extrapolation_value" not in op.attrs,
    "BatchNormalization": lambda op: len(op.outputs) == 1,
    **{name: (lambda op: "axes" not in op.attrs and len(op.inputs) > 1) for name in _BREAKING if "Reduce" in name},
}


def lift(model: Model, version: int) -> tuple[Model, str]:
    """The model at a higher operator set of the default domain.

    Returns:
        The lifted model and '', or the model as it was and the reason why not.
    """
    current = model.opsets.get("", 0)
    if current >= version:
        return model, ""
    if current < 13:
        return model, f"the model is at opset {current}; export it at 13 or later"
    for op in model.leaves():
        changed = _BREAKING.get(op.op, 0) if not op.domain else 0
        same = op.op in _UNCHANGED_IF and _UNCHANGED_IF[op.op](op)
        if current < changed <= version and not same:
            return model, f"{op.op} changed its meaning in opset {changed}"
        if op.attrs.graphs and version >= 13:
            return model, f"{op.op} holds a subgraph, which is not looked into"
    skeleton = type(model.envelope.skeleton)()
    skeleton.CopyFrom(model.envelope.skeleton)
    needed = helper.find_min_ir_version_for([helper.make_opsetid("", version)])
    skeleton.ir_version = max(skeleton.ir_version, needed)
    envelope = replace(model.envelope, skeleton=skeleton)
    lifted = replace(model, opsets={**model.opsets, "": version}, envelope=envelope)
    return lifted.with_index(model.index), ""
