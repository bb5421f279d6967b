"""A model: the operator tree, its dataflow, its weights, and what ONNX says that the tree does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from onnx import ModelProto, NodeProto

from eopt.ir.index import Index
from eopt.ir.node import Op, Region
from eopt.ir.types import Value
from eopt.ir.weights import WeightStore, weight_of

T = TypeVar("T")


@dataclass(frozen=True)
class OnnxEnvelope:
    """Everything of the source file that the tree does not model, for a lossless way back.

    Attributes:
        skeleton: the source message without nodes and initialisers of the main graph.
        nodes: by uid, the operator as imported and the message it came from; an operator still identical is written
            back as that message. Uids of imported operators count in the order of the file.
        values: what was known of every value when the model was read.
    """

    skeleton: ModelProto = field(default_factory=ModelProto)
    nodes: Mapping[int, tuple[Op, NodeProto]] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """An immutable model. Rewriting returns a new one that shares all that did not change.

    Attributes:
        root: the tree; the order of its leaves is a topological order of the dataflow.
        inputs: graph inputs as declared (weights may be among them, as in old ONNX files).
        outputs: graph outputs.
        weights: initialisers by value name.
        envelope: what ONNX says beyond the tree.
        opsets: operator-set version by domain.
    """

    root: Region
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: WeightStore
    envelope: OnnxEnvelope
    opsets: Mapping[str, int]

    # -- the tree

    def leaves(self) -> tuple[Op, ...]:
        """All operators in execution order."""
        return self._leaves

    def regions(self) -> Iterator[Region]:
        """All regions, parents first."""
        return (node for node in self.root.walk() if isinstance(node, Region))

    def node(self, uid: int) -> Op | Region:
        """The operator or region with this uid.

        Raises:
            KeyError: no such node.
        """
        return self._index.nodes[uid]

    def parent(self, uid: int) -> Region:
        """The region a node lies in.

        Raises:
            KeyError: no such node, or the root.
        """
        return self._index.region(self._index.parents[uid])

    def path(self, uid: int) -> str:
        """Module path of the region around a node, as in `encoder/layer.0/attention` ('' at the top)."""
        below_root = self._index.ancestors(uid)[:-1]
        return "/".join(region.name for region in reversed(below_root))

    # -- the dataflow

    @property
    def feeds(self) -> tuple[Value, ...]:
        """Graph inputs a caller has to give."""
        return tuple(value for value in self.inputs if value.id not in self.weights)

    def producer(self, value: str) -> Op | None:
        """The operator that computes a value; None for inputs and weights."""
        uid = self._index.producers.get(value)
        return None if uid is None else self._index.op(uid)

    def users(self, value: str) -> tuple[Op, ...]:
        """Operators that read a value, each once, subgraph captures included."""
        return tuple(self._index.op(uid) for uid in self._index.users.get(value, ()))

    def is_output(self, value: str) -> bool:
        """True when the graph returns this value."""
        return value in self._output_names

    def value(self, name: str) -> Value:
        """Type and shape of a value, as far as known."""
        producer = self.producer(name)
        if producer is not None:
            return next(output for output in producer.outputs if output.id == name)
        if name in self.weights:
            return Value(name, self.weights.dtype(name), self.weights.shape(name))
        return self._input_values.get(name, Value(name))

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The array behind a weight or a Constant node, None for anything computed or fed."""
        if name in self.weights:
            fixed = name not in self._input_values and not self.weights.is_absent(name)
            return self.weights.array(name) if fixed else None
        producer = self.producer(name)
        if producer is None or producer.op != "Constant" or producer.domain:
            return None
        for attribute in ("value", "value_float", "value_int", "value_floats", "value_ints"):
            if attribute in producer.attrs:
                return _host_array(producer.attrs[attribute])
        return None

    def fresh(self, stem: str) -> str:
        """A value name not in use yet, beginning with `stem`."""
        if not self._in_use(stem):
            return stem
        number = 1
        while self._in_use(f"{stem}_{number}"):
            number += 1
        return f"{stem}_{number}"

    def _in_use(self, name: str) -> bool:
        known = (self._index.producers, self._index.users, self.weights, self._input_values)
        return any(name in names for names in known)

    # -- analyses and rewriting

    def get(self, analysis: Callable[..., T], *key: Any) -> T:
        """`analysis(self, *key)`, computed once for this model; the key must be hashable."""
        memo = self._memo
        if (analysis, key) not in memo:
            memo[(analysis, key)] = analysis(self, *key)
        result: T = memo[(analysis, key)]
        return result

    def replace(
        self,
        old: Iterable[Op],
        new: Iterable[Op],
        *,
        renames: Mapping[str, str] | None = None,
        weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
    ) -> Model:
        """Exchange operators for others.

        New operators get uids, stand for the union of the origins of the old ones, and land in the lowest common
        ancestor of what they replace. `renames` maps a value that disappears to the one that serves its users instead.

        Raises:
            ValueError: a value still in use would lose its producer.
        """
        from eopt.ir import surgery

        return surgery.replace_ops(self, tuple(old), tuple(new), renames or {}, weights or {})

    def with_weights(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Model:
        """A copy with weights added or exchanged."""
        return replace(self, weights=self.weights.updated({name: weight_of(array) for name, array in arrays.items()}))

    def swept(self) -> Model:
        """A copy without operators and weights that no graph output depends on."""
        from eopt.ir import surgery

        return surgery.sweep(self)

    def with_index(self, index: Index) -> Model:
        """A copy with this tree; used by the surgery that has already patched the index."""
        model = replace(self, root=index.root)
        model.__dict__["_index"] = index
        return model

    @cached_property
    def _index(self) -> Index:
        return Index.of(self.root)

    @property
    def index(self) -> Index:
        """Nodes, parents, producers and users as persistent maps."""
        return self._index

    @cached_property
    def _leaves(self) -> tuple[Op, ...]:
        return tuple(self.root.leaves())

    @cached_property
    def _output_names(self) -> frozenset[str]:
        return frozenset(value.id for value in self.outputs)

    @cached_property
    def _input_values(self) -> dict[str, Value]:
        return {value.id: value for value in self.inputs}

    @cached_property
    def _memo(self) -> dict[Any, Any]:
        return {}


def _host_array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    probe = value[0] if isinstance(value, tuple) and value else value
    return np.asarray(value, dtype=np.float32 if isinstance(probe, float) else np.int64)
