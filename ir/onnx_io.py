"""The front door for ONNX: lossless, without a second copy of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto, NodeProto, TensorProto

from eopt.ir import blocks, external, infer, limits, messages, prefixes, scopes, tensors, wire
from eopt.ir.errors import InputError
from eopt.ir.garbage import uncollected
from eopt.ir.model import Model, OnnxEnvelope
from eopt.ir.node import Attrs, Op
from eopt.ir.types import Value
from eopt.ir.verify import verify
from eopt.ir.weights import InlineWeight, MappedFile, SpanWeight, Weight, WeightStore

_TOO_DEEP = "its graphs or types are nested deeper than protobuf can write"


def read(path: str | Path) -> Model:
    """Read an ONNX file. Weights stay in the file, mapped.

    Raises:
        InputError: missing, not ONNX, truncated, or external data that is missing or outside the model's folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the .onnx file inside it")
    file = MappedFile(path)
    try:
        encoded, spans = wire.strip(file.view)
        proto = ModelProto.FromString(encoded)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except DecodeError:
        raise InputError(f"{path}: not an ONNX file, or damaged; protobuf cannot decode it") from None
    try:
        return _import(proto, spans, file, path.parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_proto(proto: ModelProto, folder: Path | None = None) -> Model:
    """Import a message held in memory; `folder` is where its external data lies.

    Raises:
        InputError: not a usable model.
    """
    owned = ModelProto()
    try:
        owned.CopyFrom(proto)
    except (DecodeError, EncodeError):
        raise InputError(_TOO_DEEP) from None
    return _import(owned, [], None, folder)


def _import(proto: ModelProto, spans: list[wire.Span | None], file: MappedFile | None, folder: Path | None) -> Model:
    try:
        return _build(proto, spans, file, folder)
    except (DecodeError, EncodeError):
        raise InputError(_TOO_DEEP) from None


@uncollected
def _build(proto: ModelProto, spans: list[wire.Span | None], file: MappedFile | None, folder: Path | None) -> Model:
    if not proto.HasField("graph") or not proto.opset_import:
        raise InputError("not an ONNX model: it has no graph or no opset_import")
    opsets = {entry.domain if entry.domain != "ai.onnx" else "": entry.version for entry in proto.opset_import}
    messages.check_names(proto)
    weights = _weights(proto, spans, file, folder)
    limits.check(proto)
    values = infer.infer_values(proto, weights)
    ops = [_op(node, uid, values) for uid, node in enumerate(proto.graph.node, start=1)]
    nodes = list(proto.graph.node)
    try:
        ordered = scopes.topological(ops)
    except ValueError as error:
        raise InputError(f"graph {proto.graph.name!r}: {error}") from None
    paths = _scopes(ordered, dict(zip((op.uid for op in ops), nodes, strict=True)), weights)
    root = scopes.grow(ordered, [paths[op.uid] for op in ordered], len(ops) + 1)
    inputs = tuple(values[info.name] for info in proto.graph.input)
    outputs = tuple(values[info.name] for info in proto.graph.output)
    del proto.graph.node[:], proto.graph.initializer[:]  # what is left is the envelope
    envelope = OnnxEnvelope(proto, {op.uid: (op, node) for op, node in zip(ops, nodes, strict=True)}, values)
    model = Model(root, inputs, outputs, weights, envelope, opsets)
    verify(model)
    return model


def _scopes(ordered: Sequence[Op], nodes: Mapping[int, NodeProto], weights: WeightStore) -> Mapping[int, scopes.Scope]:
    """Scopes by uid from the best source there is; see `docs/ir.md`."""
    told = {uid: scope for uid, node in nodes.items() if (scope := scopes.scope_of(node)) is not None}
    if not any(told.values()):
        told = prefixes.prefix_scopes(ordered, weights)
    return scopes.inherited(ordered, told) if told else blocks.block_scopes(ordered, weights)


def _op(node: NodeProto, uid: int, values: Mapping[str, Value]) -> Op:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return Op(
        node.op_type,
        tuple(name or None for name in node.input),
        tuple(values.get(name) or Value(name) for name in node.output),
        Attrs(node.attribute),
        domain,
        uid,
        node.name,
        frozenset((uid,)),
    )


def _weights(
    proto: ModelProto, spans: list[wire.Span | None], file: MappedFile | None, folder: Path | None
) -> WeightStore:
    weights: dict[str, Weight] = {}
    mapped: dict[str, MappedFile] = {}
    for number, tensor in enumerate(proto.graph.initializer):
        if tensor.name in weights:
            raise InputError(f"initializer {tensor.name!r} is defined twice")
        span = spans[number] if number < len(spans) else None
        weights[tensor.name] = _weight(tensor, span, file, folder, mapped)
    external.inline(messages.nested_tensors(proto), folder, mapped)
    return WeightStore(weights)


def _weight(
    tensor: TensorProto, span: wire.Span | None, file: MappedFile | None, folder: Path | None, mapped: external.Mapped
) -> Weight:
    if tensor.data_location == TensorProto.EXTERNAL:
        if span is not None or tensor.HasField("raw_data"):
            raise InputError(f"initializer {tensor.name!r}: holds both raw data and external data")
        return external.weight(tensor, folder, mapped)
    tensors.check(tensor, span.length if span else None)
    return InlineWeight(tensor) if span is None or file is None else SpanWeight(tensor, file, span)
