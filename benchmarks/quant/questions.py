"""What a pass asks the cost gate about a model, and the operators each question is about as models of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from immutables import Map
from onnx import ModelProto
from variants import THREADS, bindings
from zoo import Case

from eopt.backends.base import Array
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.costmodel import tree
from eopt.costmodel.cut import cut
from eopt.ir import onnx_io
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Context
from eopt.passes.gate import Decision, Gate
from eopt.passes.pipeline import Pipeline
from eopt.passes.quant import candidates, placement
from eopt.tools.situation import situation

PRODUCTS = ("Conv", "Gemm", "MatMul")
RUNNER = OrtRunner(threads=THREADS)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that questions are about.

    Attributes:
        data: calibration samples.
        feed: a batch to run on.
    """

    model: Model
    data: Dataset
    feed: Mapping[str, Array]
    extents: Mapping[str, int]

    def cut(self, model: Model, ops: Sequence[Op]) -> bytes:
        """Operators of this model or a rewritten one, encoded; float values at the boundary are inputs and outputs."""
        typed, bound = tree.bound_model(model, Map(self.extents))
        uids = {op.uid for op in ops}
        return cut(typed, [op for op in typed.leaves() if op.uid in uids], bound).onnx

    def values(self, model: Model, names: Sequence[str]) -> dict[str, Array]:
        """These values where a model runs on the feed."""
        taps = [name for name in names if name not in self.feed]
        (found,) = RUNNER.run(model, [self.feed], taps)
        return {name: self.feed[name] if name in self.feed else found[name] for name in names}


@dataclass(frozen=True, eq=False)
class Question:
    """What the gate was asked, and its answer."""

    subject: Subject
    before: Model
    after: Model
    decision: Decision

    @property
    def ops(self) -> list[Op]:
        """Operators that the rewrite replaces."""
        return _missing(self.before, self.after)

    def sides(self) -> tuple[bytes, bytes]:
        """The operators that differ, before and after."""
        new = _missing(self.after, self.before)
        return self.subject.cut(self.before, self.ops), self.subject.cut(self.after, new)


@dataclass(frozen=True)
class _Asking(Gate):
    """A gate that notes what it is asked and refuses it, so that the next question is about the original again."""

    asked: list[tuple[Model, Model, Decision]] = field(default_factory=list)

    def decide(self, before: Model, after: Model) -> Decision:
        """See `Gate.decide`."""
        self.asked.append((before, after, super().decide(before, after)))
        return Decision(None, "only asked")


def subject(case: Case, batch: int) -> Subject:
    """The simplified and fused model of a case, at so many samples in a run."""
    feed = {name: array[:batch] for name, array in case.heldout.arrays.items()}
    model = Pipeline.parse("simplify,fuse").run(onnx_io.read(case.model), Context(RUNNER)).model
    return Subject(model, case.calibration, feed, bindings(model, replace(case, batch=batch)))


def products(whole: Subject) -> Iterator[Subject]:
    """Every product with the activation function behind it, each kind once."""
    model, seen = whole.model, set[object]()
    for anchor in candidates.find(model, PRODUCTS, ())[0]:
        last = model.producer(placement.tail(model, anchor.op))
        ops = [anchor.op] if last is None or last == anchor.op else [anchor.op, last]
        kind = tuple((op.op, op.attrs, shapes(model, op)) for op in ops)
        if kind not in seen:
            seen.add(kind)
            part = onnx_io.from_proto(ModelProto.FromString(whole.cut(model, ops)))
            values = whole.values(model, [value.id for value in part.feeds])
            yield Subject(part, Dataset(values), values, {})


def questions(about: Subject, passes: str, target: str, executor: str) -> list[Question]:
    """All that passes ask the gate about a model."""
    priced = situation(about.model, target, executor, None, about.extents)
    assert priced is not None
    gate = _Asking(partial(tree.compare, situation=priced), partial(tree.kernels_j, situation=priced))
    context = Context(RUNNER, about.data, gate, priced.target, priced.executor)
    Pipeline.parse(passes).run(about.model, context)
    return [Question(about, *asked) for asked in gate.asked]


def shapes(model: Model, op: Op) -> tuple[Any, ...]:
    """Of its operands."""
    return tuple(model.value(name).shape for name in op.inputs if name)


def _missing(model: Model, other: Model) -> list[Op]:
    return [op for op in model.leaves() if op.uid not in other.index.nodes]
