"""`eopt calibrate`: measures, keeps, and is found; and says why not."""

from __future__ import annotations

import json

import pytest

from eopt.backends import detect
from eopt.backends.base import Unknown
from eopt.backends.harness import bench
from eopt.backends.harness.base import Timing
from eopt.costmodel import calibration
from eopt.tools import calibrate as library
from eopt.tools.cli import main
from eopt.tools.measuring import reach

CNN = "examples/cnn/model.onnx"


def of_known_seconds(factor):
    """A harness that takes what is predicted, times a factor."""

    def measure(workloads, setup, store, progress=None, window_s=0.0):
        return [Timing(factor(place, workload), 0.01, 9, 1) for place, workload in enumerate(workloads)]

    return measure


@pytest.fixture
def twice(monkeypatch):
    predicted = {}
    candidates = library.candidates

    def remembered(*arguments):
        found = candidates(*arguments)
        predicted.update({one.workload.key: one.predicted_s for one in found})
        return found

    monkeypatch.setattr(library, "candidates", remembered)
    monkeypatch.setattr(bench, "measure", of_known_seconds(lambda _, workload: 2 * predicted[workload.key]))


def test_operators_that_were_not_learned_from_are_predicted_better(twice, capsys):
    assert main(["calibrate", "--target", "auto", "--ops", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operators"] == 20
    assert found["unseen"]["count"] == library.HELD_OUT
    assert found["unseen"]["before"] == pytest.approx(0.5)
    assert found["unseen"]["after"] < 0.1
    assert found["failed"] == []


def test_other_verbs_find_the_calibration_and_say_so(twice, capsys):
    query = ["query", "--target", "auto", "--op", "MatMul", "--inputs", "64x64,64x64", "--dtype", "float32", "--json"]
    assert main(query) == 0
    before = json.loads(capsys.readouterr().out)
    assert main(["calibrate", "--target", "auto", "--ops", "40"]) == 0
    assert "all, median" in capsys.readouterr().out
    assert main(query) == 0
    after = json.loads(capsys.readouterr().out)
    assert (before["basis"], after["basis"]) == ("estimated", "predicted")
    assert any("calibrated with 80 operators" in reason for reason in after["reasons"])
    assert main(["predict", CNN, "--target", "auto", "--json"]) == 0
    report = capsys.readouterr().out
    assert "calibrated with 80 operators" in report


def test_operators_that_fail_are_named_and_the_rest_goes_on(twice, monkeypatch, capsys):
    measure = bench.measure

    def some_fail(workloads, *rest):
        found = measure(workloads, *rest)
        return [Unknown((f"operator {place} broke",)) if place % 7 == 3 else one for place, one in enumerate(found)]

    monkeypatch.setattr(bench, "measure", some_fail)
    assert main(["calibrate", "--target", "auto", "--ops", "20"]) == 5
    said = capsys.readouterr().out
    assert "! operator 3 broke" in said
    assert "more; --json lists all" in said


def test_nothing_measured_is_an_error_with_the_first_reason_and_keeps_nothing(monkeypatch, capsys):
    monkeypatch.setattr(bench, "measure", lambda workloads, *rest: [Unknown(("no such kernel",)) for _ in workloads])
    assert main(["calibrate", "--target", "auto", "--ops", "20"]) == 3
    assert "only 0 of 20 operators could be measured" in capsys.readouterr().err
    assert not calibration.own_folder().exists()


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "give --target auto"),
    (["--target", "nvidia-h100-sxm"], f"is not this machine, which is {detect.detect().name}"),
    (["--target", "auto", "--executor", "onnxruntime", "--tune", "8"], "has no schedules to search"),
    (["--target", "auto", "--rpc", "127.0.0.1:9190"], "go together"),
    (["--target", "auto", "--rpc", "nowhere", "--key", "k", "--executor", "tvm"], "expected HOST:PORT"),
    (["--target", "auto", "--rpc", "127.0.0.1:9190", "--key", "k"], "measured with --executor tvm"),
    (["--target", "auto", "--executor", "vllm"], "vllm"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_measured(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(bench, "worker", lambda setup: pytest.fail("a process was started"))
    assert main(["calibrate", *arguments]) in (2, 3)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("text", "address"), [("127.0.0.1:9190", ("127.0.0.1", 9190)), ("[::1]:7", ("::1", 7))])
def test_a_tracker_is_a_host_and_a_port(text, address):
    assert reach(text, "k").tracker == address
    assert reach(None, None) is None


@pytest.mark.slow
def test_this_machine_is_calibrated(capsys):
    assert main(["calibrate", "--target", "auto", "--ops", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unseen"]["after"] < found["unseen"]["before"]
