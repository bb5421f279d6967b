"""Models run in segments: the same results as whole, in the memory of a segment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "passes"))  # the random graphs there

import test_random_graphs as graphs

from eopt.backends import data
from eopt.backends.base import Array, Feed
from eopt.backends.ort import OrtRunner
from eopt.backends.segments import SegmentedRunner, runner_for
from eopt.backends.segments_cut import segments
from eopt.ir import onnx_io, onnx_out
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.types import DType
from eopt.ir.verify import verify
from eopt.ir.weights import AbsentWeight

EXACT = OrtRunner(threads=1, optimize=False)
MIB = 1 << 20
LIMITS = st.sampled_from([1, 100, 400, MIB])
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@dataclass
class Watched:
    """A runner that counts its runs and sees to it that one is over before the next begins."""

    runner: OrtRunner = EXACT
    runs: int = 0
    models: list[Model] = field(default_factory=list)
    running: bool = False

    def run(self, model: Model, batches: Iterable[Feed], taps: Sequence[str] = ()) -> Iterator[dict[str, Array]]:
        assert not self.running
        self.running = True
        self.runs += 1
        self.models.append(model)
        try:
            yield from self.runner.run(model, batches, taps)
        finally:
            self.running = False


def parsed(graph: str, opset: int = 20, **weights: Array) -> Model:
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {opset}]> g {graph}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return onnx_io.from_proto(proto)


def chain(count: int, extent: int | str = 4) -> Model:
    """MatMuls of 64 bytes each."""
    body = "\n".join(f"t{n + 1} = MatMul({'x' if n == 0 else f't{n}'}, w{n})" for n in range(count))
    rng = np.random.default_rng(0)
    weights = {f"w{n}": rng.normal(size=(4, 4)).astype("f") for n in range(count)}
    return parsed(f"(float[N,{extent}] x) => (float[N,{extent}] t{count}) {{ {body} }}", **weights)


def feeds(model: Model, count: int = 3, rows: int = 2) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    extents = {v.id: [dim if isinstance(dim, int) else rows for dim in v.shape or ()] for v in model.feeds}
    return [{name: rng.normal(size=shape).astype("f") for name, shape in extents.items()} for _ in range(count)]


def assert_equal(model: Model, batches: list[dict[str, Any]], taps: Sequence[str] = (), max_bytes: int = 1) -> None:
    """Bit-equal: without optimisation every kernel sees the operands it sees in the whole model."""
    expected = list(EXACT.run(model, batches, taps))
    for max_live_bytes in (1, 1 << 30):
        actual = list(SegmentedRunner(Watched(), max_bytes, max_live_bytes).run(model, iter(batches), taps))
        assert [list(result) for result in actual] == [list(result) for result in expected]
        for result, reference in zip(actual, expected, strict=True):
            for name, array in reference.items():
                assert result[name].dtype == array.dtype
                np.testing.assert_array_equal(result[name], array, err_msg=name)


# -- the same results


def check_random_graph(rng: Random, max_bytes: int) -> None:
    model = graphs.build(rng)
    inner = [v.id for op in model.leaves() for v in op.outputs if v.dtype is not None]
    taps = rng.sample(inner, min(3, len(inner)))
    for segment in segments(model.swept(), max_bytes):
        verify(segment.model)
    assert_equal(model, feeds(model), taps, max_bytes)


@settings(max_examples=25, derandomize=True, suppress_health_check=QUIET)
@given(rng=graphs.randoms, max_bytes=LIMITS)
def test_random_graphs_in_segments_equal_the_whole(rng: Random, max_bytes: int):
    check_random_graph(rng, max_bytes)


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=QUIET)
@given(rng=graphs.randoms, max_bytes=LIMITS)
def test_random_graphs_in_segments_equal_the_whole_many_times(rng: Random, max_bytes: int):
    check_random_graph(rng, max_bytes)


@pytest.mark.parametrize(
    ("example", "max_bytes"), [("cnn", 1), ("vit", 20_000), pytest.param("vit", 1, marks=pytest.mark.slow)]
)
def test_examples_with_taps_equal_the_whole(example: str, max_bytes: int):
    folder = ROOT / "examples" / example
    model = onnx_io.read(folder / "model.onnx")
    batches = list(data.load(folder / "heldout.npz", model.feeds).take(slice(0, 6)).batches(model.feeds, 2))
    taps = [op.output for op in model.leaves() if op.op in ("Conv", "MatMul", "Gemm", "Softmax")]
    assert len(segments(model.swept(), max_bytes)) > 3
    assert_equal(model, batches, taps, max_bytes)
    whole = list(OrtRunner(threads=1).run(model, batches))
    for result, reference in zip(
        SegmentedRunner(OrtRunner(threads=1), max_bytes).run(model, batches), whole, strict=True
    ):
        for name, array in reference.items():
            # Fused or not, sums of some hundred products of values near 1 round in another order: 1e-7 each.
            np.testing.assert_allclose(result[name], array, rtol=1e-4, atol=1e-4 * np.abs(array).max())


def test_subgraphs_read_values_of_segments_before():
    model = parsed(
        """(float[N,4] x) => (float[N,4] y) {
            a = MatMul(x, w)
            b = Relu(a)
            total = ReduceSum <keepdims = 0> (b)
            positive = Greater(total, zero)
            c = If (positive) <
                then_branch = g1 () => (float[N,4] p) { p = Add(a, w0) },
                else_branch = g2 () => (float[N,4] q) { q = Sub(x, b) }
            >
            y = MatMul(c, v)
        }""",
        w=np.eye(4, dtype="f"),
        v=np.full((4, 4), 0.5, "f"),
        w0=np.arange(4, dtype="f"),
        zero=np.float32(0).reshape(()),
    )
    assert len(segments(model, 1)) > 3
    assert_equal(model, [{"x": np.ones((2, 4), "f")}, {"x": -np.ones((3, 4), "f")}], ["b", "positive"])


def test_operands_left_out_and_results_without_name():
    model = parsed(
        """(float[N,4] x) => (float[1,N,3] last) {
            low = Clip(x, , high)
            axes = Constant <value_ints = [1]> ()
            rows = Unsqueeze(low, axes)
            , last = LSTM <hidden_size = 3> (rows, w, r)
        }""",
        w=np.full((1, 12, 4), 0.1, "f"),
        r=np.full((1, 12, 3), -0.2, "f"),
        high=np.float32(0.5).reshape(()),
    )
    model = onnx_io.from_proto(_without(onnx_out.to_proto(model), "high"))
    assert_equal(model, [{"x": np.ones((2, 4), "f")}])


def _without(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The initialiser `name` becomes a Constant, which is computed in the segment that reads it."""
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
    proto.graph.initializer.remove(tensor)
    return proto


def test_an_initialiser_that_is_an_input_may_be_fed_or_not():
    model = parsed(
        "(float[N,4] x, float[4] bias) => (float[N,4] y, float[4] bias, float[N,4] x) { a = Relu(x) y = Add(a, bias) }",
        bias=np.ones(4, "f"),
    )
    x = np.ones((2, 4), "f")
    assert_equal(model, [{"x": x}, {"x": x, "bias": np.zeros(4, "f")}])


def test_no_cut_goes_through_a_sequence_or_a_type_numpy_lacks():
    model = parsed(
        """(float[N,4] x) => (float[N,4] y) {
            two = Constant <value_int = 2> ()
            first = Constant <value_int = 0> ()
            pair = SplitToSequence <axis = 1> (x, two)
            a = Relu(x)
            left = SequenceAt(pair, first)
            small = Cast <to = 16> (a)
            b = Neg(x)
            large = Cast <to = 1> (small)
            c = Concat <axis = 1> (left, left)
            s = Add(large, b)
            y = Add(s, c)
        }"""
    )
    parts = [{op.op for op in segment.model.leaves()} for segment in segments(model, 0)]
    assert {"SplitToSequence", "SequenceAt"} <= parts[0]
    assert any({"Cast", "Neg"} <= part for part in parts)
    assert len(parts) > 1
    assert_equal(model, feeds(model), max_bytes=0)


def test_a_wrong_extent_inside_the_graph_is_no_obstacle():
    proto = onnx_out.to_proto(chain(2))
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("t1", onnx.TensorProto.FLOAT, [1, 4]))
    model = onnx_io.from_proto(proto)
    assert model.value("t1").shape == (1, 4)
    assert_equal(model, [{"x": np.ones((3, 4), "f")}])


def test_unknown_values_and_feeds_left_out_are_refused():
    model = chain(2)
    with pytest.raises(InputError, match="'nowhere'"):
        list(SegmentedRunner(EXACT, 1).run(model, feeds(model), ["nowhere"]))
    with pytest.raises(InputError, match="x"):
        list(SegmentedRunner(EXACT, 1).run(model, [{}]))


# -- segments, groups and memory


@pytest.mark.parametrize(("max_bytes", "counts"), [(1, [1] * 6), (64, [1] * 6), (130, [2] * 3), (10**6, [6])])
def test_segments_are_filled_up_to_the_limit(max_bytes: int, counts: list[int]):
    assert [len(part.model.weights) for part in segments(chain(6), max_bytes)] == counts


def test_what_depends_on_weights_only_is_computed_where_it_is_read():
    """A dequantised weight handed from segment to segment would be held once for each batch."""
    model = parsed(
        """(float[N,4] x) => (float[N,4] y, float[4,4] v) {
            v = DequantizeLinear(q, scale)
            a = MatMul(x, v)
            b = Relu(a)
            y = MatMul(b, v)
        }""",
        q=np.arange(16, dtype=np.int8).reshape(4, 4),
        scale=np.float32(0.1).reshape(()),
    )
    parts = segments(model, 1)
    assert sum("q" in part.model.weights for part in parts) >= 2
    assert all("v" not in {value.id for value in part.model.inputs} for part in parts)
    assert sum("v" in {value.id for value in part.model.outputs} for part in parts) == 1
    assert_equal(model, feeds(model))


def test_dequantised_values_stay_with_their_readers():
    """An engine may compute a MatMul of which it finds one operand dequantised in 8 bits of its own choice, 0.4 % off;
    with both it sums integers, so only the scales round, by 1e-7. Nor may an 8-bit float be handed over."""
    model = parsed(
        """(float[N,32] x) => (float[N,32] y) {
            q = QuantizeLinear(x, scale, zero)
            d = DequantizeLinear(q, scale, zero)
            v = DequantizeLinear(w, scale)
            a = MatMul(d, v)
            b = Relu(a)
            f = QuantizeLinear(b, one, eighth)
            c = Neg(b)
            e = DequantizeLinear(f, one, eighth)
            g = Add(c, e)
            y = Add(g, d)
        }""",
        w=np.random.default_rng(0).integers(-99, 99, (32, 32), dtype=np.int8),
        scale=np.float32(0.02).reshape(()),
        zero=np.uint8(128).reshape(()),
        one=np.float32(1).reshape(()),
        eighth=np.zeros((), DType.FLOAT8E4M3FN.numpy),
    )
    parts = segments(model, 0)
    assert len(parts) > 3
    inputs = {value.id: value.dtype for part in parts for value in part.model.inputs}
    assert inputs["q"] == DType.UINT8
    assert not inputs.keys() & {"d", "v", "e", "f"}
    batches = feeds(model)
    assert_equal(model, batches, max_bytes=0)
    runner = OrtRunner(threads=1)
    for whole, segmented in zip(
        runner.run(model, batches), SegmentedRunner(runner, 0).run(model, batches), strict=True
    ):
        np.testing.assert_allclose(segmented["y"], whole["y"], rtol=0, atol=1e-5 * np.abs(whole["y"]).max())


@pytest.mark.parametrize(("max_live_bytes", "passes"), [(1, 5), (160, 1 + 2), (10**6, 1 + 1)])
def test_batches_go_in_groups_that_fit(max_live_bytes: int, passes: int):
    """A batch holds x, then what one MatMul has made of it, then that of the next: never more than 64 bytes, two
    results of 2 x 4 floats, one of them tapped. The first batch goes alone."""
    model, watched = chain(3), Watched()
    results = SegmentedRunner(watched, 1, max_live_bytes).run(model, iter(feeds(model, 5)), ["t1"])
    assert len(list(results)) == 5
    assert watched.runs == 3 * passes


def test_large_models_run_in_segments():
    model = chain(1)
    assert isinstance(runner_for(model), OrtRunner)
    large = AbsentWeight.of(DType.FLOAT32, (4, 3 << 26))
    weights = model.weights.updated({"w0": large})
    grown = Model(model.root, model.inputs, model.outputs, weights, model.envelope, model.opsets)
    assert isinstance(runner_for(grown), SegmentedRunner)


PEAK = """
import json, os, sys
import numpy as np
import onnxruntime
from eopt.backends.ort import OrtRunner
from eopt.backends.segments import SegmentedRunner
from eopt.ir import onnx_io

def peak():  # getrusage would tell that of the parent if it was larger when this process began
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

model = onnx_io.read(sys.argv[1])
if "gone" in sys.argv:
    os.remove(sys.argv[1])
runner = SegmentedRunner(OrtRunner(threads=1), 100 << 20) if "segments" in sys.argv else OrtRunner(threads=1)
before = peak()
sums = [float(result["t12"].sum()) for result in runner.run(model, [{"x": np.ones((2, 4096), "f")}] * 3)]
print(json.dumps({"bytes": peak() - before, "sums": sums}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_segment_at_a_time_is_in_memory(tmp_path: Path):
    """Twelve MatMuls of 64 MiB: whole they are all in memory at least once; in segments one of them is, mapped and
    packed for the kernel, and what the allocator keeps is less than another. Without the file to map, the engine is
    handed an array, and has a copy."""
    matrices = {f"w{n}": np.broadcast_to(np.float32((n + 1) / 4096), (4096, 4096)) for n in range(12)}
    model = chain(12, "K").with_weights(matrices)  # not equal ones: they would be packed once
    onnx_out.write(model, tmp_path / "chain.onnx")

    def measured(*options: str) -> dict[str, Any]:
        command = [sys.executable, "-c", PEAK, str(tmp_path / "chain.onnx"), *options]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
        result: dict[str, Any] = json.loads(found.stdout)
        return result

    whole, segmented, gone = measured(), measured("segments"), measured("segments", "gone")
    assert segmented["sums"] == gone["sums"] == pytest.approx(whole["sums"], rel=1e-5)  # sums of 4096 products
    assert whole["bytes"] > 12 * 64 * MIB
    assert segmented["bytes"] < 3 * 64 * MIB
    assert gone["bytes"] < 4 * 64 * MIB
