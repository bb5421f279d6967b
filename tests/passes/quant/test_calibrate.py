"""Calibration as it streams: memory, shapes that differ, what has no range, and what is read back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io, onnx_out
from eopt.passes.base import Context
from eopt.passes.quant import calibrate, range_store
from eopt.passes.quant.calibrate import observe, streamed
from eopt.passes.quant.observers import MinMax, ObserverKind, Observing
from eopt.passes.quant.range_store import calibrated

CHAIN = "(float[N,L,4] x) => (float[N,L,4] y) { a = Exp(x) b = Neg(a) c = Exp(b) y = Tanh(c) }"
MATMUL = "(float[N,4] x) => (float[N,3] y) { a = MatMul(x, w) y = Tanh(a) }"


class Counting:
    """A runner that remembers what it was asked for."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, ...]] = []
        self.sizes: list[int] = []

    def run(self, model, batches, taps=()) -> Iterator[dict[str, np.ndarray]]:
        self.runs.append(tuple(taps))
        for feed in batches:
            self.sizes.append(len(next(iter(feed.values()))))
            yield from OrtRunner(threads=1).run(model, [feed], taps)


@pytest.fixture
def runner() -> Counting:
    return Counting()


@pytest.fixture
def reports() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture
def context(runner, reports) -> Context:
    return Context(runner, progress=lambda *report: reports.append(report))


@pytest.fixture
def lengths(normal) -> Dataset:
    return Dataset.joined([{"x": normal(10, 17, 4)}, {"x": normal(3, 64, 4)}])


def expected(data: Dataset) -> dict[str, tuple[float, float]]:
    x = np.concatenate([part.arrays["x"].reshape(-1) for part in data.parts])
    values = {"x": x, "a": np.exp(x), "b": -np.exp(x), "c": np.exp(-np.exp(x))}
    return {name: (float(array.min()), float(array.max())) for name, array in values.items()}


# -- streaming


def test_lengths_that_differ(build, lengths, context, runner, reports):
    seen = observe(build(CHAIN), "xabc", lengths, context, MinMax)
    for name, ends in expected(lengths).items():
        assert seen.ranges[name] == pytest.approx(ends, rel=1e-6), name  # two implementations of exp
    assert runner.sizes == [8, 2, 3] and runner.runs == [("a", "b", "c")]
    assert reports == [("calibrate", 1, 3), ("calibrate", 2, 3), ("calibrate", 3, 3)]


@pytest.mark.parametrize(
    ("budget", "sizes", "runs"),
    [
        (4 * 4096, [4] * 2 + [2] + [3], [("a", "b", "c")]),
        (4 * 1024, [1] * 13, [("a", "b", "c")]),
        (3 * 1024, [1] * 26, [("a", "b"), ("c",)]),
        (2 * 1024, [1] * 26, [("a",), ("b", "c")]),
        (1, [1] * 39, [("a",), ("b",), ("c",)]),
    ],
)
def test_what_is_tapped_at_once_fits_into_the_budget(build, lengths, context, runner, monkeypatch, budget, sizes, runs):
    """A sample of the longest part is 64 x 4 float32, 1 KiB, in each of x, a, b and c."""
    whole = observe(build(CHAIN), "xabc", lengths, Context(Counting()), MinMax)
    monkeypatch.setattr(calibrate, "BUDGET_BYTES", budget)
    assert observe(build(CHAIN), "xabc", lengths, context, MinMax) == whole
    assert (runner.sizes, runner.runs) == (sizes, runs)


def test_inputs_alone_need_no_run(build, lengths, context, runner, reports):
    taken = []
    streamed(build(CHAIN), ["x", "x"], lengths, context, lambda name, array: taken.append((name, array.shape)))
    assert taken == [("x", (8, 17, 4)), ("x", (2, 17, 4)), ("x", (3, 64, 4))]
    assert not runner.runs and len(reports) == 3


def test_nothing_to_observe(build, lengths, context, runner, reports):
    assert observe(build(CHAIN), [], lengths, context, MinMax).ranges == {}
    assert not runner.runs and not reports


# -- what has no range


def test_integers_are_not_observed(build, context, runner):
    model = build("(int64[N] i) => (float[N] y) { j = Add(i, i) y = Cast<to=1>(j) }")
    seen = observe(model, ["i", "j", "y"], Dataset({"i": np.arange(5)}), context, MinMax)
    assert seen.ranges == {"y": (0.0, 8.0)}
    assert seen.unusable == {name: f"'{name}' holds int64, no real numbers" for name in "ij"}


def test_nan_in_one_batch_and_constants(build, context):
    values = np.full((20, 4), 2.0, np.float32)
    values[9, 1] = -1.0
    model = build("(float[N,4] x) => (float[N,4] y) { l = Log(x) z = Sub(x, x) o = Abs(x) y = Add(l, z) }")
    seen = observe(model, ["l", "z", "o", "x"], Dataset({"x": values}), context, MinMax)
    assert seen.unusable == {"l": "calibration saw NaN or infinity in 'l'"}
    assert seen.ranges == {"z": (0.0, 0.0), "o": (1.0, 2.0), "x": (-1.0, 2.0)}


BRANCH = """(float[N,4] x, bool[1] c) => (float[M,3] y) <int64[1] zero = {0}, int64[1] axis = {0}> {
  s = If(c) <
    then_branch = full () => (float[P,4] t) { t = Identity(x) },
    else_branch = empty () => (float[Q,4] e) { e = Slice(x, zero, zero, axis) }
  >
  y = MatMul(s, w)
}"""


@pytest.mark.parametrize("taken", [True, False])
def test_a_tensor_no_sample_reaches(build, normal, context, taken):
    data = Dataset({"x": normal(4, 4), "c": np.full(4, taken)})
    model = build(BRANCH, w=normal(4, 3))
    seen = observe(model, ["s"], data, context, MinMax)
    assert ("s" in seen.ranges) is taken
    assert taken or seen.unusable == {"s": "calibration saw no value of 's'"}


# -- kept ranges


@pytest.mark.parametrize("kind", list(ObserverKind))
def test_the_second_calibration_does_not_run_the_model(build, normal, context, runner, kind):
    weight, data = normal(4, 3), normal(16, 4)
    first = calibrated(build(MATMUL, w=weight), ["a", "x"], Dataset({"x": data}), context, Observing(kind))
    again = calibrated(build(MATMUL, w=weight), ["x", "a"], Dataset({"x": data}), context, Observing(kind))
    assert again == first and set(first.ranges) == {"a", "x"}
    assert len(runner.runs) == 1


def test_whatever_ranges_depend_on_is_calibrated_anew(build, normal, context, runner):
    weight, values, observing = normal(4, 3), normal(16, 4), Observing(ObserverKind.PERCENTILE)
    other_weight, other_values = weight.copy(), values.copy()
    other_weight[0, 0] += 1
    other_values[3, 1] += 1
    for number, (w, x, graph, tensors, choice) in enumerate(
        [
            (weight, values, MATMUL, ["a"], observing),
            (other_weight, values, MATMUL, ["a"], observing),
            (weight, other_values, MATMUL, ["a"], observing),
            (weight, values, MATMUL.replace("Tanh", "Exp"), ["a"], observing),
            (weight, values, MATMUL, ["a", "x"], observing),
            (weight, values, MATMUL, ["a"], Observing(ObserverKind.PERCENTILE, 99.0)),
            (weight, values, MATMUL, ["a"], Observing(ObserverKind.MSE)),
            (weight, values, MATMUL, ["a"], Observing(ObserverKind.MSE, symmetric=True)),
        ],
        start=1,
    ):
        calibrated(build(graph, w=w), tensors, Dataset({"x": x}), context, choice)
        assert len(runner.runs) == number


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"\xff", b'{"ranges": {"a": [0, NaN]}, "unusable": {}}', b'{"ranges": {}, "unusable": {}}',
     b'{"ranges": {"a": [1]}, "unusable": {}}', b'{"ranges": {"a": ["x", 1]}, "unusable": {}}'],
)  # fmt: skip
def test_a_damaged_file_is_written_again(build, normal, context, runner, damage):
    model, data = build(MATMUL, w=normal(4, 3)), Dataset({"x": normal(16, 4)})
    first = calibrated(model, ["a"], data, context, Observing())
    (path,) = range_store.default_folder().rglob("*.json")
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert calibrated(model, ["a"], data, context, Observing()) == first
    assert len(runner.runs) == 2 and path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_none(build, normal, context, runner, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EOPT_CACHE", str(tmp_path / "file"))
    model, data = build(MATMUL, w=normal(4, 3)), Dataset({"x": normal(16, 4)})
    assert set(calibrated(model, ["a"], data, context, Observing()).ranges) == {"a"}


ELSEWHERE = """
import sys
import numpy as np
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.passes.base import Context
from eopt.passes.quant import range_store
from eopt.passes.quant.calibrate import observe
from eopt.passes.quant.observers import ObserverKind, Observing
model, data = onnx_io.read(sys.argv[1]), Dataset({"x": np.load(sys.argv[2])})
print(range_store.content(model), range_store.samples(data))
for kind in ObserverKind:
    print(sorted(observe(model, ["a", "x"], data, Context(OrtRunner(threads=1)), Observing(kind)).ranges.items()))
"""


def test_another_process_finds_the_same(build, normal, tmp_path):
    model, values = build(MATMUL, w=normal(4, 3)), normal(100, 4)
    onnx_out.write(model, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", values)
    read, data = onnx_io.read(tmp_path / "m.onnx"), Dataset({"x": values})
    lines = [f"{range_store.content(read)} {range_store.samples(data)}"]
    for kind in ObserverKind:
        found = observe(read, ["a", "x"], data, Context(OrtRunner(threads=1)), Observing(kind))
        lines.append(str(sorted(found.ranges.items())))
    command = [sys.executable, "-c", ELSEWHERE, tmp_path / "m.onnx", tmp_path / "x.npy"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == lines
