"""NeuSight's operator graphs: what their nodes compute, and how often a model runs them."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from eopt.costmodel.datasets.base import attrs_text
from eopt.costmodel.datasets.neusight_ops import BINARY, vector

VOCABULARY = {"bert": 30522, "gpt2": 50257, "gpt3": 50257, "opt": 50272, "switchxl4": 32128}
FIRST_LAYER = re.compile(r"_(layer|layers|h|block)_0_")
SECOND_LAYER = re.compile(r"_(layer|layers|h|block)_1_")


@dataclass(frozen=True)
class Node:
    """A node of a graph; `work` is what its forward pass computes, `back` whether it has a backward pass."""

    name: str
    kind: str
    work: tuple[tuple[str, Any], ...]
    back: bool
    before: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """A concrete operator of a node."""

    op: str
    inputs: list[list[int]]
    attrs: str = ""


def nodes(table: Any) -> list[Node]:
    """The nodes of one graph, in order of execution."""
    columns = ("Name", "OpName", "FwOps", "BwOps", "Prev", "OutputShape")
    return [_node(*values) for values in zip(*(table[name] for name in columns), strict=True)]


def _node(name: str, kind: str, forward: str, backward: str, before: str, shape: str) -> Node:
    work = tuple((entry[0], entry[1]) for entry in literal_eval(forward))
    previous = () if before == "set()" else tuple(sorted(literal_eval(before)))
    return Node(name, kind, work, backward != "[]", previous, tuple(literal_eval(shape)))


def operators(node: Node, by_name: Mapping[str, Node], desc: str) -> list[Operator]:
    """What a node computes; several operators for a fused one, none for views, sizes and indexing."""
    if node.kind == "misc" and node.name.startswith("max") and len(node.shape) > 1:  # OPT clamps its scores
        return [Operator("Max", [list(node.shape), []])]
    built = [_operator(node, name, extents, by_name, desc) for name, extents in node.work]
    return [operator for operator in built if operator]


def _operator(node: Node, name: str, extents: Any, by_name: Mapping[str, Node], desc: str) -> Operator | None:
    if name == "Linear":
        return _linear(node, extents, desc)
    if name == "BMM":
        b, m, k, n = extents
        return Operator("MatMul", [[b, m, k], [b, k, n]])
    if name == "MEM":
        return _memory(node, extents, by_name, desc)
    if not name.startswith("VEC"):
        return None
    operator = Operator(*vector(name.removeprefix("VEC"), list(extents)))
    if operator.op not in BINARY.values() or name.endswith("u") or len(node.work) > 1:
        return operator
    return Operator(operator.op, _operands(node, by_name) or operator.inputs)


def _linear(node: Node, extents: tuple[int, int, int], desc: str) -> Operator:
    m, k, n = extents
    if node.name.startswith("matmul") and len(node.shape) == 4:  # a product of activations, rows of the batch merged
        batch = prod(node.shape[:2])
        return Operator("MatMul", [[batch, m // batch, k], [batch, k, n]])
    if node.name == "lm_head" or desc.startswith("switch"):  # without a bias
        return Operator("MatMul", [[m, k], [k, n]])
    return Operator("Gemm", [[m, k], [k, n], [n]])


def _operands(node: Node, by_name: Mapping[str, Node]) -> list[list[int]] | None:
    """Operands with the extents they are broadcast from; None where the graph does not tell."""
    shapes = [by_name[name].shape for name in node.before if name in by_name]
    if len(shapes) != 2:
        return None
    first, second = sorted(shapes, key=prod, reverse=True)
    if first != node.shape or len(second) > len(first):
        return None
    if any(small not in (1, large) for small, large in zip(reversed(second), reversed(first), strict=False)):
        return None
    return [list(first), [] if second == (1,) else list(second)]


def _memory(node: Node, shapes: Any, by_name: Mapping[str, Node], desc: str) -> Operator | None:
    first = list(shapes[0])
    if node.kind == "EMBEDDING" and not node.name.endswith("attention_bias"):
        return Operator("Gather", [[VOCABULARY[desc.partition("_")[0].partition("-")[0]], shapes[-1][-1]], first])
    if node.kind == "where":
        return Operator("Where", [first, list(shapes[1]), []])
    if node.kind == "dropout":
        return Operator("Dropout", [first])
    if node.kind == "cumsum":
        return Operator("CumSum", [first, []])
    if node.kind == "mean":
        return Operator("ReduceMean", [first], attrs_text(axes=[-1], keepdims=1))
    if node.kind == "contiguous" and len(first) == 4 and _transposed(node):
        a, b, c, d = first
        return Operator("Transpose", [[a, c, b, d]], attrs_text(perm=[0, 2, 1, 3]))
    return None


def _transposed(node: Node) -> bool:
    return any(name.startswith(("permute", "transpose")) for name in node.before)


def counts(graph: list[Node], layers: int) -> list[int]:
    """How often the model runs each node: graphs of one layer stand for `layers` of them.

    The layer ends with the residual sum after its last named node.
    """
    names = [node.name for node in graph]
    if layers < 2 or any(map(SECOND_LAYER.search, names)):
        return [1] * len(graph)
    inside = [i for i, name in enumerate(names) if FIRST_LAYER.search(name)]
    first, last = inside[0], inside[-1]
    after = _first(graph[last + 1 :], {"VECln", "Linear", "VECadd"})
    if after is not None and graph[last + 1 + after].kind == "VECadd":
        last += 1 + after
    return [layers if first <= i <= last else 1 for i in range(len(graph))]


def _first(graph: Iterable[Node], kinds: set[str]) -> int | None:
    return next((i for i, node in enumerate(graph) if node.kind in kinds), None)
