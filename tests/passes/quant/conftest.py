"""Small models from ONNX's text form, and the pass run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest

from eopt.backends import target as targets
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io, onnx_out
from eopt.ir.model import Model
from eopt.ir.verify import verify
from eopt.passes.base import Context, Outcome
from eopt.passes.quant import Quant

SAMPLES = 16
CPU = targets.load("cpu-amd-epyc-9004")  # whatever CPU the tests run on


@pytest.fixture
def build() -> Callable[..., Model]:
    """`build("(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", w=array)`."""

    def built(graph: str, opset: int = 20, **weights: np.ndarray) -> Model:
        proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}]> g {graph}')
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
        return onnx_io.from_proto(proto)

    return built


@pytest.fixture
def normal() -> Callable[..., np.ndarray]:
    """Seeded normal float32 arrays."""
    rng = np.random.default_rng(0)
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)


@pytest.fixture
def samples() -> Callable[[Model], Dataset]:
    """Normal samples for every input of a model, the same ones each time."""

    def sampled(model: Model) -> Dataset:
        rng = np.random.default_rng(1)
        shapes = {value.id: (SAMPLES, *value.shape[1:]) for value in model.feeds}
        return Dataset({name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})

    return sampled


@pytest.fixture
def quantise(samples: Callable[[Model], Dataset]) -> Callable[..., Outcome]:
    """Run the pass, check the invariants of the result, and that onnxruntime loads it and its shapes did not change."""

    def quantised(model: Model, data: Dataset | None = None, gate: object = None, **options: object) -> Outcome:
        data = data or samples(model)
        outcome = Quant(**options).run(model, Context(OrtRunner(threads=1), data, gate, CPU))
        verify(outcome.model)
        onnx.checker.check_model(onnx_out.to_proto(outcome.model), full_check=True)
        for before, after in zip(outputs(model, data), outputs(outcome.model, data), strict=True):
            assert {name: array.shape for name, array in before.items()} == {n: a.shape for n, a in after.items()}
        return outcome

    return quantised


@pytest.fixture
def sqnr(samples: Callable[[Model], Dataset]) -> Callable[..., float]:
    """Signal to noise of the first output between two models on the same samples, in dB."""

    def ratio(model: Model, other: Model, data: Dataset | None = None) -> float:
        data = data or samples(model)
        pairs = list(zip(outputs(model, data), outputs(other, data), strict=True))
        name = model.outputs[0].id
        expected, actual = (np.concatenate([pair[side][name] for pair in pairs]) for side in (0, 1))
        return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - actual) ** 2)))

    return ratio


def outputs(model: Model, data: Dataset) -> Iterator[dict[str, np.ndarray]]:
    return OrtRunner(threads=1).run(model, data.batches(model.feeds))


@pytest.fixture
def types() -> Callable[[Model], list[str]]:
    """Operator types in execution order."""
    return lambda model: [op.op for op in model.leaves()]
