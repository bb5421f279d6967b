"""Local clean-ups: rules that only ever remove work, so the cost gate is not asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("split-sequence", "SplitToSequence", exempt=True)
def split_sequence(m: Matcher, op: Op) -> Replacement:
    """A sequence whose items are only picked by constant numbers is a Split (torch exports `chunk` that way)."""
    users = m.model.users(op.output)
    m.need(users and all(user.op == "SequenceAt" for user in users), "the sequence is not only indexed", op)
    m.need(not m.model.is_output(op.output), "the sequence is a graph output", op)
    m.need(op.attrs.get("keepdims", 1), "keepdims=0 drops the axis", op)
    m.need(m.model.opset >= 13, "Split takes its sizes as an input since opset 13", op)
    data, axis = m.model.value(op.inputs[0] or ""), op.attrs.get("axis", 0)
    m.need(data.shape is not None and isinstance(data.shape[axis], int), "the extent of the split axis is unknown", op)
    assert data.shape is not None
    parts = _parts(m, op, int(data.shape[axis]))
    picked = {int(m.scalar(user, 1)) % len(parts): user for user in users}
    m.need(len(picked) == len(users), "one item is picked twice", op)
    outputs = []
    for number, part in enumerate(parts):
        name = picked[number].output if number in picked else m.model.fresh(f"{op.output}_{number}")
        size = tuple(part if place == axis % len(data.shape) else dim for place, dim in enumerate(data.shape))
        outputs.append(replace(data, id=name, shape=size))
    lengths = m.model.fresh(f"{op.output}_sizes")
    split = Op("Split", (op.inputs[0], lengths), tuple(outputs), Attrs.of(axis=axis))
    return Replacement([op, *users], [split], {lengths: np.asarray(parts, np.int64)})


def _parts(m: Matcher, op: Op, extent: int) -> list[int]:
    """The extents of the items, which have to fill the axis."""
    sizes = m.constant(op, 1)
    m.need(sizes.size and sizes.min() > 0, "an item has no extent", op)
    if sizes.ndim == 0:
        return [min(int(sizes), extent - start) for start in range(0, extent, int(sizes))]
    parts: list[int] = sizes.reshape(-1).tolist()
    m.need(sum(parts) == extent, f"items of {sum(parts)} in all do not fill an axis of {extent}", op)
    return parts


@rule("transpose-pair", "Transpose", exempt=True)
def transpose_pair(m: Matcher, op: Op) -> Replacement:
    """Two transpositions in a row are one; the first stays where others use it too."""
    inner = m.producer(op, 0, "Transpose")
    first, second = inner.attrs.get("perm"), op.attrs.get("perm")
    m.need(first and second, "a transposition without perm reverses an unknown rank", op)
    assert first is not None
    assert second is not None
    perm = tuple(first[axis] for axis in second)
    kind = Op("Identity", inner.inputs, op.outputs) if perm == tuple(range(len(perm))) else None
    alone = len(m.model.users(inner.output)) == 1 and not m.model.is_output(inner.output)
    new = kind or Op("Transpose", inner.inputs, op.outputs, Attrs.of(perm=perm))
    return Replacement([inner, op] if alone else [op], [new])


@rule("identity", "Identity", "Dropout", exempt=True)
def identity(m: Matcher, op: Op) -> Replacement:
    """A copy under another name."""
    m.need(len(op.inputs) < 3 or op.inputs[2] is None, "the training mode is an input", op)
    for mask in op.outputs[1:]:
        m.need(not m.model.users(mask.id) and not m.model.is_output(mask.id), "the dropout mask is used", op)
    m.need(not m.model.is_output(op.output), f"{op.output!r} is a graph output", op)
    users = m.model.users(op.output)
    m.need(all(op.output in user.inputs for user in users), "a subgraph captures the value", op)
    source = op.inputs[0]
    m.need(source, "it has no input", op)
    return Replacement([op], [], renames={op.output: source or ""})


_NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}


@rule("redundant", "Cast", "Reshape", "Expand", "Transpose", "Concat", *_NEUTRAL, exempt=True)
def redundant(m: Matcher, op: Op) -> Replacement:
    """An operator that returns its input: same type, same shape, nothing changed."""
    source = op.inputs[0] or ""
    if op.op in _NEUTRAL:
        neutral, source = m.constant_input(op)
        m.need(neutral == _NEUTRAL[op.op], f"{op.op} with {neutral:g} changes its operand", op)
        m.need(op.op not in ("Div", "Sub") or source == op.inputs[0], "the constant is on the left", op)
    if op.op == "Transpose":
        perm = op.attrs.get("perm")
        m.need(perm and perm == tuple(range(len(perm))), "the axes are moved", op)
    m.need(op.op != "Concat" or len(op.inputs) == 1, "several values are joined", op)
    before, after = m.model.value(source), m.model.value(op.output)
    m.need(before.shape is not None and before.shape == after.shape, "the shape changes or is unknown", op)
    m.need(before.dtype is not None and before.dtype == after.dtype, "the type changes or is unknown", op)
    m.need(not m.model.is_output(op.output), f"{op.output!r} is a graph output", op)
    m.need(all(op.output in user.inputs for user in m.model.users(op.output)), "a subgraph captures the value", op)
    return Replacement([op], [], renames={op.output: source})


@rule("cast-like", "CastLike", exempt=True)
def cast_like(m: Matcher, op: Op) -> Replacement:
    """A conversion to the type of another value, once that type is known, is a Cast."""
    like = m.model.value(op.inputs[1] or "").dtype
    m.need(like is not None, "the type to convert to is unknown", op)
    assert like is not None
    return Replacement([op], [Op("Cast", op.inputs[:1], op.outputs, Attrs.of(to=like.onnx), name=op.name)])


RULES = (cast_like, split_sequence, transpose_pair, identity, redundant)
