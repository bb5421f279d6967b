"""Everything that is nested in a model message: subgraphs, functions, training graphs, and the tensors they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
)

from eopt.ir.errors import InputError

Block = GraphProto | FunctionProto
"""A list of nodes: the main graph, a subgraph, a training graph or the body of a function."""


def blocks(model: ModelProto) -> Iterator[Block]:
    """All blocks of a model, without recursion; the main graph comes first."""
    training = [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
    yield from below([model.graph, *training, *model.functions])


def below(roots: Iterable[Block]) -> Iterator[Block]:
    """These blocks and the subgraphs their nodes hold."""
    pending = list(roots)[::-1]
    while pending:
        block = pending.pop()
        yield block
        for attribute in attributes(block):
            pending += [attribute.g] if attribute.HasField("g") else []
            pending += attribute.graphs


def attributes(block: Block) -> Iterator[AttributeProto]:
    """Attributes of a block's own nodes, and default values of a function."""
    for node in block.node:
        yield from node.attribute
    if isinstance(block, FunctionProto):
        yield from block.attribute_proto


def tensors(block: Block) -> Iterator[TensorProto]:
    """Tensors of a block itself: initialisers first, then attributes and the parts of sparse ones."""
    sparse: list[SparseTensorProto] = []
    if isinstance(block, GraphProto):
        yield from block.initializer
        sparse += block.sparse_initializer
    for attribute in attributes(block):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        sparse += attribute.sparse_tensors
    for found in sparse:
        yield from ([found.values] if found.HasField("values") else [])
        yield from ([found.indices] if found.HasField("indices") else [])


def nested_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All tensors but the initialisers of the main graph."""
    own = len(model.graph.initializer)
    for number, block in enumerate(blocks(model)):
        yield from islice(tensors(block), own if number == 0 else 0, None)


def check_names(model: ModelProto) -> None:
    """Protobuf hands out bytes where a text is not UTF-8.

    Raises:
        InputError: there is one among the texts that are looked at.
    """
    found = [entry.domain for entry in model.opset_import]
    found += [name for block in blocks(model) for name in names(block)]
    if not all(isinstance(name, str) for name in found):
        raise InputError("holds a name that is not UTF-8; the file is damaged")


def names(block: Block) -> Iterator[str]:
    """Every text of a block that anything looks at."""
    for node in block.node:
        yield from _node_names(node)
    for attribute in attributes(block):
        yield from (attribute.name, attribute.ref_attr_name, attribute.doc_string)
    for info in (*block.value_info, *(() if isinstance(block, FunctionProto) else (*block.input, *block.output))):
        yield from _port_names(info)
    for tensor in tensors(block):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    yield block.name
    if isinstance(block, FunctionProto):
        yield from (block.domain, block.overload, *block.input, *block.output, *block.attribute)


def _node_names(node: NodeProto) -> Iterator[str]:
    yield from (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
    yield from (text for entry in node.metadata_props for text in (entry.key, entry.value))


def _port_names(info: ValueInfoProto) -> Iterator[str]:
    yield info.name
    yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
