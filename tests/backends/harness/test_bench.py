"""Measuring through processes: results in order, once, and in spite of those that fail or kill."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from onnx import parser

from eopt.backends.base import Unknown
from eopt.backends.harness import bench, process
from eopt.backends.harness.arrays import read_arrays, write_arrays
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.harness.store import Store
from eopt.ir.errors import InputError, UsageError

HEADER = '<ir_version: 10, opset_import: ["": 20]> g '
SETUP = Setup("onnxruntime", threads=1)


def workload(body: str = "y = Relu(x)", name: str = "Relu", size: int = 8) -> Workload:
    text = f"{HEADER}(float[{size}] x) => (float[{size}] y) {{ {body} }}"
    return Workload(name, parser.parse_model(text).SerializeToString())


BROKEN = Workload("no model", b"\x00broken")


def test_a_workload_is_named_by_what_is_executed_and_not_by_its_name():
    assert workload(name="one").key == workload(name="other").key
    assert workload().key != workload("y = Abs(x)").key
    assert workload().key != Workload("Relu", workload().onnx, copies=2).key


def test_results_come_in_order_and_what_fails_is_unknown_with_the_reason(tmp_path):
    found = bench.measure([workload(), BROKEN, workload("y = Abs(x)")], SETUP, Store(tmp_path, "here"))
    assert isinstance(found[0], Timing)
    assert found[0].latency_s > 0
    assert isinstance(found[1], Unknown)
    assert found[1].reasons[0]
    assert isinstance(found[2], Timing)


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    store = Store(tmp_path, "here")
    first = bench.measure([workload()], SETUP, store)
    monkeypatch.setattr(bench, "worker", lambda setup: pytest.fail("a process was started"))
    assert bench.measure([workload(name="the same")], SETUP, store) == first


@pytest.mark.parametrize("content", ["", "{", '{"timing": {"latency_s": -1}}', "[]"])
def test_a_damaged_measurement_is_no_measurement(tmp_path, content):
    store = Store(tmp_path, "here")
    store.keep(workload(), SETUP, "1", Timing(1e-3, 0.0, 9, 1))
    (path,) = tmp_path.rglob("*.json")
    path.write_text(content)
    assert store.find(workload(), SETUP, "1") is None


def test_measurements_of_others_are_not_taken(tmp_path):
    store = Store(tmp_path, "here")
    store.keep(workload(), SETUP, "1", Timing(1e-3, 0.0, 9, 1))
    assert store.find(workload(), SETUP, "1") == Timing(1e-3, 0.0, 9, 1)
    assert store.find(workload(), SETUP, "2") is None
    assert store.find(workload(), Setup("onnxruntime", threads=2), "1") is None
    assert Store(tmp_path, "elsewhere").find(workload(), SETUP, "1") is None


def test_who_kills_the_process_is_left_out_and_the_others_go_on(tmp_path, monkeypatch):
    prepare = process.Worker.prepare

    def deadly(self, asked, feed=None):
        found = prepare(self, asked, feed)
        if asked.name == "deadly":
            os.kill(self.process.pid, signal.SIGKILL)
        return found

    monkeypatch.setattr(process.Worker, "prepare", deadly)
    asked = [workload(), workload("y = Abs(x)", "deadly"), workload("y = Exp(x)")]
    found = bench.measure(asked, SETUP, Store(tmp_path, "here"))
    assert [isinstance(one, Timing) for one in found] == [True, False, True]
    assert "deadly" in found[1].reasons[0]


def test_a_process_that_hangs_is_ended(monkeypatch):
    with process.worker(SETUP) as found:
        os.kill(found.process.pid, signal.SIGSTOP)
        with pytest.raises(process.WorkerDied, match="no answer"):
            found.ask({"do": "drop", "number": 0}, timeout_s=0.2)
        assert found.process.poll() is not None


def test_outputs_come_back_as_they_are_over_there():
    feed = {"x": np.linspace(-1, 1, 8, dtype=np.float32)}
    with process.worker(SETUP) as found:
        prepared = found.prepare(workload(), feed)
        assert prepared.run(3) > 0
        np.testing.assert_array_equal(prepared.outputs()["y"], np.maximum(feed["x"], 0))
        with pytest.raises(InputError):
            found.prepare(BROKEN)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "bool", "float8_e4m3fn"])
def test_arrays_of_any_type_survive_a_file(tmp_path, dtype):
    import ml_dtypes

    array = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, dtype, dtype))
    write_arrays(tmp_path / "a.npz", {"a/b": array, "s": array[0, 0]})
    found = read_arrays(tmp_path / "a.npz")
    assert found["a/b"].dtype == array.dtype
    assert found["s"].shape == ()
    np.testing.assert_array_equal(found["a/b"], array)


@pytest.mark.parametrize("name", ["vllm", "nobody"])
def test_executors_that_are_not_measured_are_refused(name, tmp_path):
    with pytest.raises(UsageError, match=f"executor {name} cannot be measured"):
        bench.measure([workload()], Setup(name), Store(tmp_path, "here"))


def test_an_executor_that_is_missing_comes_with_its_fix(tmp_path, monkeypatch):
    from importlib import metadata

    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    with pytest.raises(UsageError, match="pip install 'eopt\\[torch\\]'"):
        bench.measure([workload()], Setup("torch"), Store(tmp_path, "here"))


def test_many_workloads_are_held_in_batches():
    asked = [workload(size=size) for size in range(1, 2 * bench.BATCH + 2)]
    batches = list(bench._batches(asked))
    assert [one for batch in batches for one in batch] == asked
    assert max(map(len, batches)) <= bench.BATCH
