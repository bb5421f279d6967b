"""`simplify`: constant folding and dead code, with module scopes kept and without ever copying large weights."""

from __future__ import annotations

import io
import logging
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from onnx import ModelProto, NodeProto

from eopt.ir import infer, onnx_out, scopes
from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op
from eopt.ir.types import Value
from eopt.ir.weights import InlineWeight
from eopt.ir.wire import KEEP_BYTES
from eopt.passes.base import Change, Context, Outcome, Pass
from eopt.passes.fold import fold_constants, merge_equal
from eopt.passes.rewrite import Rule, apply_rules
from eopt.passes.tidy import RULES


@dataclass(frozen=True)
class Simplify(Pass):
    """Fold constants, remove dead, repeated and redundant operators.

    onnxsim folds what depends on shapes and small constants; it sees the model without its weights (large ones take
    part as inputs), so models of any size pass. Its graph optimiser stays off: it drops a Reshape that GPT-2 needs
    (onnxsim 0.8.1), and eopt's own rules have reasons and tests. Subtrees of large weights are folded by eopt.
    """

    name: ClassVar[str] = "simplify"

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """Local clean-ups that onnxsim leaves undone."""
        return RULES

    def run(self, model: Model, context: Context) -> Outcome:
        """See `Pass.run`."""
        context.progress("simplify", 0, 3)
        simplified, notes = _with_onnxsim(model)
        context.progress("simplify", 1, 3)
        tidied = apply_rules(merge_equal(simplified), RULES, replace(context, gate=None), "simplify")
        folded = merge_equal(fold_constants(tidied.model)).swept()
        context.progress("simplify", 3, 3)
        return Outcome(folded, (*_changes(model, folded), *tidied.applied), notes=(*notes, *tidied.notes))


def _changes(before: Model, after: Model) -> tuple[Change, ...]:
    """What disappeared, counted by operator type."""
    old, new = (Counter(op.op for op in model.leaves()) for model in (before, after))
    return tuple(Change("folded or removed", f"{count} x {kind}") for kind, count in sorted((old - new).items()))


def _with_onnxsim(model: Model) -> tuple[Model, tuple[str, ...]]:
    stripped = _stripped(model)
    try:
        simplified = _run_onnxsim(stripped)
    except Exception as error:  # a C++ library over arbitrary models raises anything; the model stays usable
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        return model, (f"onnxsim gave up ({reason}); only eopt's own folding was applied",)
    return _reattached(model, simplified), ()


def _stripped(model: Model) -> ModelProto:
    """The model with small constants inside and large weights declared as inputs."""
    proto = onnx_out.skeleton(model)
    declared = {info.name for info in proto.graph.input}
    for name in model.weights:
        if model.weights.nbytes(name) <= KEEP_BYTES:
            proto.graph.initializer.append(model.weights.message(name))
        elif name not in declared:
            proto.graph.input.append(infer.info_of(model.value(name)))
    return proto


def _run_onnxsim(proto: ModelProto) -> ModelProto:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            onnxsim = _import_onnxsim()
            simplified: ModelProto
            simplified, _ = onnxsim.simplify(proto, check_n=0, perform_optimization=False, certify=False)
    finally:
        logging.disable(level)
    return simplified


def _import_onnxsim() -> Any:
    """onnxsim imports torch where it finds it, seconds for features that are not used here: it shall not find it."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import onnxsim
    finally:
        if hidden:
            del sys.modules["torch"]
    return onnxsim


def _reattached(model: Model, proto: ModelProto) -> Model:
    """The simplified graph as a tree again: operators are recognised by the values they compute.

    A recognised operator keeps uid, origin and scope. A new one stands for the operators whose values it replaced as
    far as they can be told: it takes the scope shared by its producers and users.
    """
    made = {value.id: op for op in model.leaves() for value in op.outputs}
    fresh = model.index.next_uid
    values = _values(model, proto)
    ops: list[Op] = []
    for node in proto.graph.node:
        old = next((made[name] for name in node.output if name in made), None)
        op = _op(node, old.uid if old else fresh, old.origin if old else frozenset(), values)
        fresh += old is None
        ops.append(old if old is not None and _same(old, op) else op)
    ops = list(scopes.topological(ops))
    known = {op.uid: scopes.scope_in(model.index, op.uid) for op in ops if op.uid in model.index.nodes}
    paths = scopes.inherited(ops, known)
    weights = {t.name: InlineWeight(t) for t in proto.graph.initializer if t.name not in model.weights}
    root = scopes.grow(ops, [paths[op.uid] for op in ops], max(fresh, model.index.next_uid), model.root.cls)
    return replace(model, root=root, weights=model.weights.updated(weights))


def _values(model: Model, proto: ModelProto) -> dict[str, Value]:
    found = infer.infer_values(proto, model.weights)
    return {name: _better(model.value(name), value) for name, value in found.items()}


def _better(old: Value, new: Value) -> Value:
    """What was declared before wins over what is inferred again, unless it knew less."""
    return old if old.dtype is not None and old.shape is not None else new


def _op(node: NodeProto, uid: int, origin: frozenset[int], values: dict[str, Value]) -> Op:
    outputs = tuple(values.get(name) or Value(name) for name in node.output)
    inputs = tuple(name or None for name in node.input)
    return Op(node.op_type, inputs, outputs, Attrs(node.attribute), node.domain, uid, node.name, origin)


def _same(old: Op, new: Op) -> bool:
    return (old.op, old.domain, old.inputs, old.attrs) == (new.op, new.domain, new.inputs, new.attrs)
