"""Local surgery on the tree: every edit copies only the path to the root and patches the index along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from eopt.ir import scopes
from eopt.ir.index import Index
from eopt.ir.model import Model
from eopt.ir.node import Op, Region
from eopt.ir.types import Value


def replace_ops(
    model: Model,
    old: tuple[Op, ...],
    new: tuple[Op, ...],
    renames: Mapping[str, str],
    weights: Mapping[str, np.ndarray[Any, Any]],
) -> Model:
    """See `Model.replace`."""
    new = _keep_output_names(model, new, renames)
    new = _placed(model.index, old, new)
    index = _rename_users(model, old, renames)
    for candidate in _insertions(index, old, new):
        if _in_order(candidate, new):
            return _finish(model, candidate, old, weights)
    return _finish(model, _regrown(candidate), old, weights)


def _placed(index: Index, old: tuple[Op, ...], new: tuple[Op, ...]) -> tuple[Op, ...]:
    origin = frozenset[int]().union(*(op.origin for op in old))
    return tuple(replace(op, uid=index.next_uid + number, origin=op.origin or origin) for number, op in enumerate(new))


def _keep_output_names(model: Model, new: tuple[Op, ...], renames: Mapping[str, str]) -> tuple[Op, ...]:
    """A graph output keeps its name: its new producer is told to use it, or an Identity carries it over."""
    made = {value.id for op in new for value in op.outputs}
    for gone, serving in renames.items():
        captured = any(gone not in user.inputs for user in model.users(gone))
        if not model.is_output(gone) and not captured:
            continue
        if serving in made and not model.is_output(serving):
            new = tuple(renamed(op, {serving: gone}) for op in new)
        else:
            new = (*new, Op("Identity", (serving,), (replace(model.value(gone), id=gone),)))
    return new


def renamed(op: Op, names: Mapping[str, str]) -> Op:
    """The operator with values it reads and makes called by other names."""
    inputs = tuple(names.get(name, name) if name else name for name in op.inputs)
    outputs = tuple(replace(value, id=names.get(value.id, value.id)) for value in op.outputs)
    return replace(op, inputs=inputs, outputs=outputs)


def _rename_users(model: Model, old: tuple[Op, ...], renames: Mapping[str, str]) -> Index:
    index, leaving = model.index, {op.uid for op in old}
    for gone in renames:
        if model.is_output(gone):  # the name stays alive, so its users may keep reading it
            continue
        for uid in index.users.get(gone, ()):
            user = index.op(uid)
            if uid not in leaving and gone in user.inputs:
                inputs = tuple(renames[gone] if name == gone else name for name in user.inputs)
                index = index.exchanged(uid, (replace(user, inputs=inputs),))
    return index


def _insertions(index: Index, old: tuple[Op, ...], new: tuple[Op, ...]) -> Iterator[Index]:
    """Trees with the old operators gone and the new ones in the common region, behind or before the child that held
    the last old one, else where that one was."""
    anchor = max(old, key=lambda op: index.position(op.uid))
    chains = [[region.uid for region in reversed(index.ancestors(op.uid))] for op in old]
    depth = sum(len(set(level)) == 1 for level in zip(*chains, strict=False))
    path = [region.uid for region in reversed(index.ancestors(anchor.uid))] + [anchor.uid]
    for beside, behind in dict.fromkeys(((path[depth], True), (path[depth], False), (anchor.uid, True))):
        placed = index.inserted(beside, behind, new)
        for op in old:
            placed = placed.exchanged(op.uid, ())
        yield placed


def _in_order(index: Index, new: tuple[Op, ...]) -> bool:
    for op in new:
        here = index.position(op.uid)
        before = (index.producers[name] for name in op.reads if name in index.producers)
        after = (uid for value in op.outputs for uid in index.users.get(value.id, ()))
        if any(index.position(uid) >= here for uid in before) or any(index.position(uid) <= here for uid in after):
            return False
    return True


def _regrown(index: Index) -> Index:
    """The whole tree again, in a new topological order: the rare case of a rewrite that crosses other operators."""
    ops = scopes.topological(tuple(index.root.leaves()))
    paths = [scopes.scope_in(index, op.uid) for op in ops]
    return Index.of(scopes.grow(ops, paths, index.next_uid))


def _finish(model: Model, index: Index, old: tuple[Op, ...], weights: Mapping[str, np.ndarray[Any, Any]]) -> Model:
    for value in (value.id for op in old for value in op.outputs):
        wanted = value in index.users or model.is_output(value)
        if value and wanted and value not in index.producers and value not in weights:
            raise ValueError(f"value {value!r} is still in use but has lost its producer")
    rewritten = model.with_index(index)
    return rewritten.with_weights(weights) if weights else rewritten


def sweep(model: Model) -> Model:
    """See `Model.swept`."""
    index = model.index
    for op in _dead(model):
        index = index.exchanged(op.uid, ())
    declared = {value.id for value in (*model.inputs, *model.outputs)}
    unused = {name for name in model.weights if name not in index.users and name not in declared}
    swept = model if index is model.index else model.with_index(index)
    return replace_weights(swept, unused) if unused else swept


def replace_weights(model: Model, unused: set[str]) -> Model:
    """A copy without these weights, its index kept."""
    lighter = replace(model, weights=model.weights.without(unused))
    return lighter.with_index(model.index)


def _dead(model: Model) -> list[Op]:
    wanted = [value.id for value in model.outputs]
    alive: set[int] = set()
    while wanted:
        op = model.producer(wanted.pop())
        if op is None or op.uid in alive:
            continue
        alive.add(op.uid)
        wanted.extend(op.reads)
    return [op for op in reversed(model.leaves()) if op.uid not in alive]


def retyped(model: Model, values: Mapping[str, Value]) -> Model:
    """A copy in which these operator outputs have other types or shapes; order and uids stay."""
    return model.with_index(Index.of(_retyped(model.root, values)))


def _retyped(region: Region, values: Mapping[str, Value]) -> Region:
    children: list[Op | Region] = []
    for child in region.children:
        if isinstance(child, Region):
            children.append(_retyped(child, values))
            continue
        outputs = tuple(values.get(value.id, value) for value in child.outputs)
        children.append(child if outputs == child.outputs else replace(child, outputs=outputs))
    return replace(region, children=tuple(children))
