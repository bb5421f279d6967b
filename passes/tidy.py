"""Local clean-ups: rules that only ever remove work, so the cost gate is not asked."""

from __future__ import annotations

from eopt.ir.node import Attrs, Op
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("split-sequence", "SplitToSequence", exempt=True)
def split_sequence(m: Matcher, op: Op) -> Replacement:
    """A sequence whose items are only picked by constant numbers is a Split (torch exports `chunk` that way)."""
    users = m.model.users(op.output)
    m.need(users and all(user.op == "SequenceAt" for user in users), "the sequence is not only indexed", op)
    m.need(op.attrs.get("keepdims", 1), "keepdims=0 drops the axis", op)
    sizes = m.constant(op, 1)
    picked = {int(m.scalar(user, 1)): user for user in users}
    m.need(len(picked) == len(users), "one item is picked twice", op)
    data = op.inputs[0]
    axis = op.attrs.get("axis", 0)
    shape = m.model.value(data or "").shape
    m.need(shape is not None and isinstance(shape[axis], int), "the extent of the split axis is unknown", op)
    assert shape is not None
    extent = int(shape[axis])
    parts = sizes.reshape(-1).tolist()
    if sizes.ndim == 0:
        parts = [min(int(sizes), extent - start) for start in range(0, extent, int(sizes))]
    outputs = []
    for number, part in enumerate(parts):
        user = picked.get(number)
        known = m.model.value(data or "")
        size = tuple(part if place == axis % len(shape) else dim for place, dim in enumerate(shape))
        name = user.output if user else m.model.fresh(f"{op.output}_{number}")
        outputs.append(type(known)(name, known.dtype, size))
    lengths = m.model.fresh(f"{op.output}_sizes")
    split = Op("Split", (data, lengths), tuple(outputs), Attrs.of(axis=axis))
    import numpy as np

    return Replacement([op, *users], [split], {lengths: np.asarray(parts, np.int64)})


@rule("transpose-pair", "Transpose", exempt=True)
def transpose_pair(m: Matcher, op: Op) -> Replacement:
    """Two transpositions in a row are one."""
    inner = m.producer(op, 0, "Transpose", uses=1)
    first, second = inner.attrs.get("perm"), op.attrs.get("perm")
    m.need(first and second, "a transposition without perm reverses an unknown rank", op)
    assert first is not None
    assert second is not None
    perm = tuple(first[axis] for axis in second)
    kind = Op("Identity", inner.inputs, op.outputs) if perm == tuple(range(len(perm))) else None
    return Replacement([inner, op], [kind or Op("Transpose", inner.inputs, op.outputs, Attrs.of(perm=perm))])


@rule("identity", "Identity", "Dropout", exempt=True)
def identity(m: Matcher, op: Op) -> Replacement:
    """A copy under another name."""
    m.need(len(op.inputs) < 3 or op.inputs[2] is None, "the training mode is an input", op)
    m.need(len(op.outputs) == 1 or not m.model.users(op.outputs[1].id), "the dropout mask is used", op)
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
