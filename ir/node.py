"""The nodes of the operator tree: leaves are ONNX nodes (`Op`), inner nodes are modules (`Region`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from onnx import AttributeProto, GraphProto, helper, numpy_helper

from eopt.ir.siblings import Siblings
from eopt.ir.types import Value


class Attrs(Mapping[str, Any]):
    """Immutable attributes of an operator, decoded when read.

    The ONNX messages are kept, so attribute order, types and subgraphs survive unread. Tensors decode to arrays,
    lists to tuples, strings to `str`; graphs, sparse tensors and type messages are returned as they are.
    """

    __slots__ = ("_decoded", "_protos")

    def __init__(self, protos: Iterable[AttributeProto] = ()) -> None:
        self._protos: dict[str, AttributeProto] = {proto.name: proto for proto in protos}
        self._decoded: dict[str, Any] = {}

    @classmethod
    def of(cls, **values: Any) -> Attrs:
        """Attributes from Python values; None means absent."""
        return cls(helper.make_attribute(name, value) for name, value in values.items() if value is not None)

    @property
    def protos(self) -> tuple[AttributeProto, ...]:
        """The ONNX messages, in their original order."""
        return tuple(self._protos.values())

    @property
    def graphs(self) -> tuple[GraphProto, ...]:
        """Subgraphs held by this operator (bodies of If, Loop, Scan …)."""
        found: list[GraphProto] = []
        for proto in self._protos.values():
            found += [proto.g] if proto.type == AttributeProto.GRAPH else list(proto.graphs)
        return tuple(found)

    def __getitem__(self, name: str) -> Any:
        if name not in self._decoded:
            self._decoded[name] = _decode(self._protos[name])
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._protos)

    def __len__(self) -> int:
        return len(self._protos)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Attrs):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Attrs({dict(self)})"

    def _key(self) -> frozenset[bytes]:
        return frozenset(proto.SerializeToString(deterministic=True) for proto in self._protos.values())


def _decode(proto: AttributeProto) -> Any:
    if proto.ref_attr_name or proto.type == AttributeProto.UNDEFINED:
        return proto
    if proto.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(proto.t)
    value = helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if proto.type == AttributeProto.STRINGS:
        return tuple(item.decode("utf-8", "replace") for item in value)
    return tuple(value) if isinstance(value, list) else value


NO_ATTRS = Attrs()


@dataclass(frozen=True)
class Op:
    """One ONNX node. Edges are value names; `None` is an optional input left out.

    `uid` is 0 until the op is placed in a model; `origin` holds the uids of the imported nodes it stands for.
    """

    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[Value, ...]
    attrs: Attrs = NO_ATTRS
    domain: str = ""
    uid: int = 0
    name: str = ""
    origin: frozenset[int] = field(default=frozenset(), compare=False)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Distinct values this op depends on: its inputs, then what its subgraphs capture."""
        names = [name for name in self.inputs if name]
        for graph in self.attrs.graphs:
            names += sorted(_captures(graph))
        return tuple(dict.fromkeys(names))

    @property
    def output(self) -> str:
        """Name of the first output."""
        return self.outputs[0].id


def _captures(graph: GraphProto) -> set[str]:
    """Outer values a subgraph reads."""
    known = {value.name for value in graph.input} | {weight.name for weight in graph.initializer}
    used: set[str] = set()
    for node in graph.node:
        used.update(name for name in node.input if name)
        for attribute in node.attribute:
            nested = [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)
            for inner in nested:
                used |= _captures(inner)
        known.update(node.output)
    used.update(value.name for value in graph.output)
    return used - known


class Kind(StrEnum):
    """What a region stands for."""

    MODULE = "module"
    STUDENT = "student"
    BODY = "body"


@dataclass(frozen=True)
class Region:
    """An inner node of the tree: a module of the source model, or a student that replaced one.

    `name` is relative to the parent, `cls` the class of the module where the exporter recorded it.
    """

    uid: int
    name: str
    cls: str = ""
    kind: Kind = Kind.MODULE
    children: Sequence[Op | Region] = ()
    origin: frozenset[int] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.children, Siblings):
            object.__setattr__(self, "children", Siblings.of(self.children))

    def leaves(self) -> Iterator[Op]:
        """Operators below this region, in execution order."""
        for node in self.walk():
            if isinstance(node, Op):
                yield node

    def walk(self) -> Iterator[Op | Region]:
        """This region and everything below it, parents first, without recursion (trees may be deep)."""
        stack: list[Op | Region] = [self]
        while stack:
            node = stack.pop()
            yield node
            if isinstance(node, Region):
                stack.extend(reversed(node.children))
