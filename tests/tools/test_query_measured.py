"""`eopt query --with measured`: answers that were measured, and those that cannot be."""

from __future__ import annotations

import json

import pytest

from eopt.backends.base import Unknown
from eopt.backends.harness import bench
from eopt.backends.harness.base import Timing
from eopt.tools.cli import main

PRODUCT = {"op": "MatMul", "inputs": [[32, 64], [64, 16]], "dtype": "float32"}
GELU = {"op": "Gelu", "inputs": [[32, 64]], "dtype": "float32", "count": 3}
COLLECTIVE = {"op": "AllReduce", "inputs": [[64]], "dtype": "float32", "attrs": {"ranks": 2}}


@pytest.fixture
def of_a_millisecond(monkeypatch):
    asked = []

    def measure(workloads, setup, store, progress=None, window_s=0.0):
        asked.extend(workloads)
        return [Unknown(("it broke",)) if one.name == "Relu" else Timing(1e-3, 0.03, 9, 7) for one in workloads]

    monkeypatch.setattr(bench, "measure", measure)
    return asked


def ask(tmp_path, capsys, rows, *more):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = main(["query", str(path), "--target", "auto", "--with", "measured", *more])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_latencies_are_those_of_the_device_and_joules_say_where_they_are_from(tmp_path, capsys, of_a_millisecond):
    code, (product, gelu, total) = ask(tmp_path, capsys, [PRODUCT, GELU], "--total")
    assert code == 0
    for found in (product, gelu):
        assert found["latency_s"] == 1e-3
        assert found["latency_s_lo"] < 1e-3 < found["latency_s_hi"] < 1.1e-3
        assert found["basis"] == "measured"
        assert found["energy_j"] == pytest.approx(found["power_w"] * 1e-3)
        assert found["energy_j_lo"] < found["energy_j"] < found["energy_j_hi"]
        assert found["executor"] == "onnxruntime"
        assert any("predicted power" in reason for reason in found["reasons"])
    assert total["latency_s"] == pytest.approx(4e-3)
    assert total["basis"] == "measured"


def test_what_cannot_be_measured_is_null_with_its_reason_and_the_rest_goes_on(tmp_path, capsys, of_a_millisecond):
    relu = {"op": "Relu", "inputs": [[64]], "dtype": "float32"}
    code, (collective, broken, product) = ask(tmp_path, capsys, [COLLECTIVE, relu, PRODUCT])
    assert code == 5
    assert collective["latency_s"] is None
    assert "collectives" in collective["reasons"][0]
    assert (broken["latency_s"], broken["energy_j"], broken["reasons"]) == (None, None, ["it broke"])
    assert broken["basis"] == "unknown"
    assert product["latency_s"] == 1e-3


def test_schedules_are_part_of_the_answer(tmp_path, capsys, of_a_millisecond, monkeypatch):
    monkeypatch.setattr(bench, "versions", lambda setup: "0.27")
    code, (found,) = ask(tmp_path, capsys, [PRODUCT], "--executor", "tvm", "--tune", "32")
    assert code == 0
    assert found["schedule"] == "tuned:32"
    assert "tvm 0.27" in found["reasons"][0]


def test_a_wrong_line_is_named_and_nothing_is_measured(tmp_path, capsys, of_a_millisecond):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(PRODUCT) + "\n" + json.dumps({"op": "MatMul", "inputs": [[2, 3]], "dtype": "no"}) + "\n")
    assert main(["query", str(path), "--target", "auto", "--with", "measured"]) == 3
    captured = capsys.readouterr()
    assert "line 2" in captured.err
    assert not captured.out
    assert not of_a_millisecond


@pytest.mark.parametrize(("arguments", "said"), [
    (["--target", "nvidia-h100-sxm", "--with", "measured", "--executor", "torch"], "is not this machine"),
    (["--target", "auto", "--tune", "8"], "--tune needs --with measured"),
    (["--target", "auto", "--key", "k"], "--key needs --with measured"),
    (["--target", "auto", "--with", "measured", "--executor", "vllm"], "vllm"),
])  # fmt: skip
def test_what_cannot_be_is_refused(arguments, said, capsys):
    query = ["--op", "MatMul", "--inputs", "8x8,8x8", "--dtype", "float32"]
    assert main(["query", *arguments, *query]) in (2, 5)
    captured = capsys.readouterr()
    assert said in captured.err + captured.out


def test_one_operator_is_measured_here_and_then_known(capsys, monkeypatch):
    query = ["query", "--target", "auto", "--with", "measured", "--op", "MatMul", "--inputs", "64x64,64x64"]
    assert main([*query, "--dtype", "float32", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(bench, "worker", lambda setup: pytest.fail("a process was started"))
    assert main([*query, "--dtype", "float32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
