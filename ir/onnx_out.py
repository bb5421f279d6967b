"""The back door for ONNX: an unmodified model comes out equal to what went in; weights are streamed from their file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

from onnx import ModelProto, NodeProto, StringStringEntryProto, TensorProto

from eopt.ir import infer, scopes, wire
from eopt.ir.errors import OutputError
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.weights import SpanWeight, Weight

SINGLE_FILE_BYTES = 2**31 - 2**24  # protobuf readers stop at 2 GiB
PIECE_BYTES = 1 << 22
PAGE = 4096  # external tensors start on a page, so that readers can map them


def to_proto(model: Model) -> ModelProto:
    """The model as one message, weights included."""
    proto = skeleton(model)
    for name in model.weights:
        weight = model.weights[name]
        tensor = proto.graph.initializer.add()
        tensor.CopyFrom(weight.header)
        if tensor.name != name:
            tensor.name = name
        raw = weight.raw()
        if raw is not None and tensor.data_location != TensorProto.EXTERNAL:
            tensor.raw_data = bytes(raw)
    return proto


def skeleton(model: Model) -> ModelProto:
    """The model as a message without its initialisers."""
    proto = ModelProto()
    proto.CopyFrom(model.envelope.skeleton)
    _set_opsets(proto, model)
    order = export_order(model)
    told = _scopes(model, order)
    proto.graph.node.extend(_node(model, op, told.get(op.uid)) for op in order)
    values = model.envelope.values
    imported = {value.id for op, _ in model.envelope.nodes.values() for value in op.outputs}
    declared = [info for info in proto.graph.value_info if _still_true(model, info.name, imported)]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(declared)
    for ports, now in ((proto.graph.input, model.inputs), (proto.graph.output, model.outputs)):
        before = {info.name: info for info in ports}
        kept = [before[v.id] if v == values.get(v.id) and v.id in before else infer.info_of(v) for v in now]
        del ports[:]
        ports.extend(kept)
    return proto


def _still_true(model: Model, name: str, imported: set[str]) -> bool:
    """A declaration stays unless its value has changed or gone since the import; files declare odd names too."""
    if name not in model.index.producers and name not in model.weights:
        return name not in imported
    return model.value(name) == model.envelope.values.get(name)


def _set_opsets(proto: ModelProto, model: Model) -> None:
    present = {entry.domain if entry.domain != "ai.onnx" else "": entry for entry in proto.opset_import}
    for domain, version in model.opsets.items():
        if domain in present:
            present[domain].version = version
        else:
            proto.opset_import.add(domain=domain, version=version)


def export_order(model: Model) -> tuple[Op, ...]:
    """The order of the source file; a new operator goes where the first node it stands for was."""
    priority = {op.uid: min(op.origin, default=op.uid) for op in model.leaves()}
    return scopes.topological(model.leaves(), priority)


def _scopes(model: Model, order: Sequence[Op]) -> dict[int, str]:
    """Scopes to be written, by uid: those of new operators, and once there are any, of all that do not tell theirs.

    What was found by looking at the whole graph could not be found again by looking at another.
    """
    imported = model.envelope.nodes
    new = {op.uid for op in order if op.uid not in imported or imported[op.uid][0] != op}
    if not new and len(order) == len(imported):
        return {}
    silent = {op.uid for op in order if op.uid not in new and scopes.scope_of(imported[op.uid][1]) is None}
    return {uid: scopes.format_own(scopes.scope_in(model.index, uid)) for uid in new | silent}


def _node(model: Model, op: Op, scope: str | None) -> NodeProto:
    imported, proto = model.envelope.nodes.get(op.uid, (None, None))
    if proto is not None and op == imported:
        return proto if scope is None else _telling(proto, scope)
    node = _base(op, imported, proto)
    node.input.extend(name or "" for name in op.inputs)
    node.output.extend(value.id for value in op.outputs)
    node.attribute.extend(op.attrs.protos)
    kept = [] if proto is None else [entry for entry in proto.metadata_props if entry.key != scopes.OWN_KEY]
    node.metadata_props.extend(kept)
    return _telling(node, scope) if scope else node


def _telling(proto: NodeProto, scope: str) -> NodeProto:
    node = NodeProto()
    node.CopyFrom(proto)
    node.metadata_props.append(StringStringEntryProto(key=scopes.OWN_KEY, value=scope))
    return node


def _base(op: Op, imported: Op | None, proto: NodeProto | None) -> NodeProto:
    """What the tree does not know of an operator stays while it is the same kind: overload, documentation, devices."""
    node = NodeProto()
    if proto is not None and imported is not None and (op.op, op.domain) == (imported.op, imported.domain):
        node.CopyFrom(proto)
        for field in ("input", "output", "attribute", "metadata_props"):
            node.ClearField(field)
    node.op_type, node.domain, node.name = op.op, op.domain, op.name or f"{op.op}_{op.uid}"
    return node


def write(model: Model, path: str | Path, shard_bytes: int | None = None) -> None:
    """Write a model; above protobuf's limit its weights go to `<name>.data` beside it.

    The files appear whole or not at all, and older ones stay untouched until then.

    Args:
        shard_bytes: weights go to `<name>-00001-of-0000N.data` of about this size each, whatever the size of the model;
            a tensor that is larger has a file of its own.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    proto = skeleton(model)
    headers = {name: _header(model.weights[name], name) for name in model.weights}
    total = proto.ByteSize() + sum(h.ByteSize() + model.weights.nbytes(n) + 32 for n, h in headers.items())
    with ExitStack() as files:  # left in reverse: the model takes its name last
        main = files.enter_context(atomic(path))
        for location, names in _sidecars(model, path.name, total, shard_bytes).items():
            handle = files.enter_context(atomic(path.with_name(location)))
            _write_external(handle, model, {name: headers[name] for name in names}, location)
        for piece in _encoded(proto, headers, model):
            main.write(piece)


def _sidecars(model: Model, name: str, total: int, shard_bytes: int | None) -> dict[str, list[str]]:
    """Weights by the file that takes their bytes; none while all fits into the model's own."""
    if shard_bytes is None:
        return {f"{name}.data": list(model.weights)} if total > SINGLE_FILE_BYTES else {}
    shards: list[list[str]] = []
    room = 0
    for weight in model.weights:
        needed = model.weights.nbytes(weight)
        if needed > room or not shards:
            shards.append([])
            room = shard_bytes
        shards[-1].append(weight)
        room -= needed
    return {f"{name}-{number:05}-of-{len(shards):05}.data": names for number, names in enumerate(shards, start=1)}


def _header(weight: Weight, name: str) -> TensorProto:
    header = TensorProto()
    header.CopyFrom(weight.header)
    if header.name != name:
        header.name = name
    if header.data_location == TensorProto.EXTERNAL:
        header.ClearField("data_location")
        del header.external_data[:]
    return header


def _write_external(handle: BinaryIO, model: Model, headers: dict[str, TensorProto], location: str) -> None:
    for name, header in headers.items():
        raw = model.weights[name].raw()
        if raw is None:
            continue
        handle.write(b"\0" * (-handle.tell() % PAGE))
        header.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", handle.tell()), ("length", len(raw))):
            header.external_data.add(key=key, value=str(value))
        for piece in _in_pieces(raw, model.weights[name]):
            handle.write(piece)


def _encoded(proto: ModelProto, headers: dict[str, TensorProto], model: Model) -> Iterator[bytes | memoryview]:
    """The protobuf encoding in pieces; the raw bytes of weights are passed through, never copied."""
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    size = len(graph) + sum(len(piece) for piece in _encoded_tensors(headers, model))
    yield proto.SerializeToString(deterministic=True)
    yield wire.tag(wire.MODEL_GRAPH) + wire.varint(size) + graph
    yield from _encoded_tensors(headers, model)


def _encoded_tensors(headers: dict[str, TensorProto], model: Model) -> Iterable[bytes | memoryview]:
    for name, header in headers.items():
        raw = None if header.data_location == TensorProto.EXTERNAL else model.weights[name].raw()
        encoded = header.SerializeToString(deterministic=True)
        if raw is not None:
            encoded += wire.tag(wire.TENSOR_RAW_DATA) + wire.varint(len(raw))
        yield wire.tag(wire.GRAPH_INITIALIZER) + wire.varint(len(encoded) + len(raw or b"")) + encoded
        if raw is not None:
            yield from _in_pieces(raw, model.weights[name])


def _in_pieces(raw: memoryview, weight: Weight) -> Iterator[memoryview]:
    """Bytes to be written in turn; mapped pages are given back once they are."""
    for start in range(0, len(raw), PIECE_BYTES):
        yield raw[start : start + PIECE_BYTES]
        if isinstance(weight, SpanWeight):
            weight.file.release()


def made(folder: Path) -> Path:
    """A folder, with those above it, made where it is not there yet.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created ({error.strerror})") from None
    return folder


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes its name only once it is complete and on disk.

    Raises:
        OutputError: it cannot be written.
    """
    temporary: Path | None = None
    try:
        descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
