"""onnxruntime as the engine that calibrates and verifies, without a second copy of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import TensorProto, ValueInfoProto

from eopt.backends import detect
from eopt.backends.base import Array, Feed
from eopt.ir import infer, onnx_out
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.types import DType
from eopt.ir.weights import SpanWeight

EXTERNAL_BYTES = 1 << 12
_FOLDER = "session.model_external_initializers_file_folder_path"
# x86 without VNNI saturates sums of 8-bit products at 16 bits. What is verified must not depend on this machine, so
# there QDQ groups run in float, and integer operators on kernels that do not saturate where there are any.
_EXACT = ("session.disable_quant_qdq", "session.x64quantprecision")


@dataclass(frozen=True)
class OrtRunner:
    """Runs models on the CPU.

    Attributes:
        threads: intra-operator threads; 0 leaves the choice to onnxruntime.
        optimize: let onnxruntime fuse and lay out the graph; off keeps every tapped value and less memory.
    """

    threads: int = 0
    optimize: bool = True

    def run(self, model: Model, batches: Iterable[Feed], taps: Sequence[str] = ()) -> Iterator[dict[str, Array]]:
        """See `Runner.run`."""
        session = self.session(model, taps)
        names = [output.name for output in session.get_outputs()]
        for feed in batches:
            try:
                results = session.run(names, dict(feed))
            except Exception as error:  # onnxruntime raises types of its own, all of them plain Exceptions
                raise InputError(f"onnxruntime cannot run the model: {_first_line(error)}") from None
            yield dict(zip(names, results, strict=True))

    def session(self, model: Model, taps: Sequence[str] = ()) -> Any:
        """An `onnxruntime.InferenceSession` over the model as it is in memory.

        Raises:
            InputError: onnxruntime refuses the model.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        if detect.saturates(detect.cpu_features()):
            for setting in _EXACT:
                options.add_session_config_entry(setting, "1")
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if self.optimize else level.ORT_DISABLE_ALL
        if not self.optimize:
            options.add_session_config_entry("session.disable_prepacking", "1")
        detached = _detached(model, taps)
        if detached.folder is not None:
            options.add_session_config_entry(_FOLDER, str(detached.folder))
        if detached.arrays:
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in detached.arrays.values()]
            options.add_external_initializers(list(detached.arrays), values)
        try:
            session = ort.InferenceSession(detached.encoded, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"onnxruntime cannot load the model: {_first_line(error)}") from None
        return session


@dataclass(frozen=True)
class _Detached:
    """An encoded model whose large weights are elsewhere: in files of `folder`, which the engine maps, or in arrays."""

    encoded: bytes
    folder: Path | None
    arrays: dict[str, Array]


def _detached(model: Model, taps: Sequence[str]) -> _Detached:
    proto = onnx_out.skeleton(model)
    proto.graph.output.extend(_tap(model, name) for name in taps if not model.is_output(name))
    arrays: dict[str, Array] = {}
    folder: Path | None = None
    for name in model.weights:
        weight, tensor = model.weights[name], proto.graph.initializer.add()
        tensor.CopyFrom(weight.header)
        tensor.name = name
        raw = weight.raw()
        if raw is None:
            continue
        del tensor.external_data[:]
        if len(raw) < EXTERNAL_BYTES or not _held_by_numpy(weight.header.data_type):
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(raw)
        elif (
            isinstance(weight, SpanWeight) and (folder in (None, weight.file.path.parent)) and weight.file.still_there()
        ):
            folder = weight.file.path.parent
            _refer(tensor, weight.file.path.name, weight.span.offset, weight.span.length)
        else:
            _refer(tensor, "in-memory", 0, len(raw))
            arrays[name] = model.weights.array(name)
    return _Detached(proto.SerializeToString(), folder, arrays)


def _held_by_numpy(number: int) -> bool:
    """False for types that numpy has no arrays of by itself: onnxruntime takes those in the model only."""
    dtype = DType.from_onnx(number)
    return dtype is not None and dtype.numpy.isbuiltin == 1


def _refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _tap(model: Model, name: str) -> ValueInfoProto:
    value = model.value(name)
    return ValueInfoProto(name=name) if value.dtype is None else infer.info_of(value)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
