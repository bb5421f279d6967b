"""onnxruntime as the engine that calibrates and verifies, without a second copy of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto, ValueInfoProto

from eopt.backends.base import Array, Feed
from eopt.ir import infer, onnx_out
from eopt.ir.errors import InputError
from eopt.ir.model import Model

EXTERNAL_BYTES = 1 << 12


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
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if self.optimize else level.ORT_DISABLE_ALL
        if not self.optimize:
            options.add_session_config_entry("session.disable_prepacking", "1")
        encoded, weights = _detached(model, taps)
        if weights:
            options.add_external_initializers(
                list(weights), [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
            )
        try:
            session = ort.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"onnxruntime cannot load the model: {_first_line(error)}") from None
        return session


def _detached(model: Model, taps: Sequence[str]) -> tuple[bytes, dict[str, Array]]:
    """The encoded model with large weights declared external, and those weights as (mapped) arrays."""
    proto = onnx_out.skeleton(model)
    proto.graph.output.extend(_tap(model, name) for name in taps if not model.is_output(name))
    arrays: dict[str, Array] = {}
    for name in model.weights:
        weight, tensor = model.weights[name], proto.graph.initializer.add()
        tensor.CopyFrom(weight.header)
        tensor.name = name
        raw = weight.raw()
        if raw is None:
            continue
        del tensor.external_data[:]
        if len(raw) < EXTERNAL_BYTES:
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(raw)
            continue
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "in-memory"), ("offset", 0), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        arrays[name] = model.weights.array(name)
    return proto.SerializeToString(), arrays


def _tap(model: Model, name: str) -> ValueInfoProto:
    value = model.value(name)
    return ValueInfoProto(name=name) if value.dtype is None else infer.info_of(value)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
