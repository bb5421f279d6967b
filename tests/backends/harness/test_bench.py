"""Measuring through processes: results in order, once, and in spite of those that fail or kill."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from eopt.backends.base import Unknown
from eopt.backends.harness import bench, process
from eopt.backends.harness.arrays import read_arrays, write_arrays
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.harness.store import Store
from eopt.ir.errors import InputError, OutputError, UsageError

HEADER = '<ir_version: 10, opset_import: ["": 20]> g '
SETUP = Setup("onnxruntime", threads=1)


def workload(body: str = "y = Relu(x)", name: str = "Relu", size: int = 8) -> Workload:
    text = f"{HEADER}(float[{size}] x) => (float[{size}] y) {{ {body} }}"
    return Workload(name, parser.parse_model(text).SerializeToString())


def figures(**changes: object) -> str:
    return json.dumps({"timing": {"latency_s": 1e-3, "cv": 0.0, "repeats": 9, "calls": 1, **changes}})


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


@pytest.mark.parametrize("content", [
    "", "{", "[]", "[" * 100_000, '{"timing": {"latency_s": -1}}', '{"timing": 3}', figures(latency_s=-1.0),
    figures(latency_s=0), figures(latency_s="1"), figures(latency_s=float("inf")), figures(latency_s=float("nan")),
    figures(cv=None), figures(cv=-0.1), figures(repeats="many"), figures(more=1),
])  # fmt: skip
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


@pytest.mark.parametrize("runs", [1, 7, 30])
def test_who_fails_while_it_is_timed_is_left_out_and_the_others_go_on(tmp_path, monkeypatch, runs):
    """As where memory runs out late: neither preparing nor the first executions said so."""
    run, seen = process.RemotePrepared.run, []

    def failing(self, calls):
        seen.extend([1] * (self.number == 2))
        if self.number == 2 and len(seen) >= runs:
            raise InputError("out of memory")
        return run(self, calls)

    monkeypatch.setattr(process.RemotePrepared, "run", failing)
    asked = [workload(), workload("y = Abs(x)", "Abs"), workload("y = Exp(x)")]
    found = bench.measure(asked, SETUP, Store(tmp_path, "here"))
    assert [isinstance(one, Timing) for one in found] == [True, False, True]
    assert found[1].reasons == ("Abs: out of memory",)
    assert len(seen) == runs, "what failed is not tried again"


def test_a_measurement_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    store, whole = Store(tmp_path, "here"), Timing(1e-3, 0.0, 9, 1)
    store.keep(workload(), SETUP, "1", whole)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises((OutputError, OSError)):
        store.keep(workload(), SETUP, "1", Timing(2e-3, 0.0, 9, 1))
    assert store.find(workload(), SETUP, "1") == whole
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_store_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "measurements").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="measurements"):
        Store(tmp_path, "here").keep(workload(), SETUP, "1", Timing(1e-3, 0.0, 9, 1))


def test_a_gpu_is_not_measured_by_falling_back_to_the_processor(tmp_path):
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(UsageError, match="pip install onnxruntime-gpu"):
        bench.measure([workload()], Setup("onnxruntime", "cuda"), Store(tmp_path, "here"))


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


@pytest.mark.parametrize(("name", "fix"), [
    ("torch", r"pip install 'eopt\[torch\]'"), ("tvm", r"pip install 'eopt\[tvm\]'"),
    ("onnxruntime", "pip install onnxruntime$"), ("onnxruntime-cuda", "pip install onnxruntime-gpu$"),
])  # fmt: skip
def test_an_executor_that_is_missing_comes_with_its_fix(tmp_path, monkeypatch, name, fix):
    from importlib import metadata

    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    with pytest.raises(UsageError, match=fix):
        bench.measure([workload()], Setup(name), Store(tmp_path, "here"))


def test_many_workloads_are_held_in_batches():
    asked = [workload(size=size) for size in range(1, 2 * bench.BATCH + 2)]
    batches = list(bench._batches(asked))
    assert [one for batch in batches for one in batch] == asked
    assert max(map(len, batches)) <= bench.BATCH
