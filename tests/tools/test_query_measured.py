"""`eopt query --with measured`: answers that were measured, and those that cannot be."""

from __future__ import annotations

import json

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends.base import Unknown
from eopt.backends.harness import bench
from eopt.backends.harness.base import Timing
from eopt.backends.tvm import fleet
from eopt.costmodel.asked import workload_of
from eopt.costmodel.prior import Prior
from eopt.ir.ops import spec
from eopt.tools import asking, situation
from eopt.tools.asking import measured
from eopt.tools.cli import main
from eopt.tools.measuring import setup_for, store_of
from eopt.tools.situation import hardware

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
    (["--target", "auto", "--tune", "8"], "--tune needs --with measured"),
    (["--target", "auto", "--key", "k"], "--key needs --with measured"),
    (["--target", "auto", "--with", "measured", "--executor", "vllm"], "vllm"),
    (["--target", "auto", "--with", "measured", "--tune", "8"], "has no schedules to search"),
    (["--target", "auto", "--with", "measured", "--power-cap", "100"], "a device is measured as it is set"),
    (["--target", "auto", "--with", "measured", "--rpc", "127.0.0.1:1", "--key", "k"], "measured with --executor tvm"),
])  # fmt: skip
def test_what_cannot_be_is_refused(arguments, said, capsys):
    query = ["--op", "MatMul", "--inputs", "8x8,8x8", "--dtype", "float32"]
    assert main(["query", *arguments, *query]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_a_device_elsewhere_answers_from_the_cache_and_says_why_not_more(tmp_path, capsys, monkeypatch):
    """Measurements may have been made on that machine and carried here."""
    monkeypatch.setattr(bench, "worker", lambda setup: pytest.fail("a process was started"))
    elsewhere = ["--target", "cpu-amd-epyc-7003", "--executor", "onnxruntime", "--cache", str(tmp_path / "cache")]
    target, executor = hardware("cpu-amd-epyc-7003", "onnxruntime")
    setup = setup_for(target, executor, None, None)
    store_of(tmp_path / "cache", target).keep(workload_of(PRODUCT), setup, bench.versions(setup), Timing(2e-3, 0, 9, 1))
    code, (product, gelu) = ask(tmp_path, capsys, [PRODUCT, GELU], *elsewhere)
    assert code == 5
    assert (product["latency_s"], product["basis"]) == (2e-3, "measured")
    assert gelu["latency_s"] is None
    assert "is not this machine" in gelu["reasons"][0]


def test_what_cannot_be_priced_is_measured_without_joules_and_left_out_of_the_total(
    tmp_path, capsys, of_a_millisecond, monkeypatch
):
    class Silent:
        def query_many(self, kernels, target, executor):
            return [Unknown(("nobody knows",)) for _ in kernels]

    monkeypatch.setattr(situation, "cost_model_of", lambda *_: Silent())
    code, (product, total) = ask(tmp_path, capsys, [PRODUCT], "--total")
    assert code == 5
    assert 0 < product["latency_s_lo"] < product["latency_s"] == 1e-3 < product["latency_s_hi"]
    assert product["energy_j"] is product["power_w"] is None
    assert "no joules: nobody knows" in product["reasons"]
    assert (total["unknown_count"], total["latency_s"]) == (1, None)


@given(cv=st.floats(0, 3), seconds=st.floats(1e-7, 10))
@settings(max_examples=30)
def test_bounds_hold_the_figure_however_far_repeats_are_apart(cv, seconds):
    target, executor = hardware("auto", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "measure", lambda workloads, *_: [Timing(seconds, cv, 9, 1)] * len(workloads))
        (found,) = measured([PRODUCT], target, executor, Prior())
    assert 0 < found["latency_s_lo"] < found["latency_s"] == seconds < found["latency_s_hi"]
    assert 0 < found["energy_j_lo"] < found["energy_j"] < found["energy_j_hi"]


def test_devices_behind_a_tracker_are_asked_and_named(tmp_path, capsys, monkeypatch):
    asked = []

    def fleet_measure(workloads, setup, tracker, key, feed, folder, trust_network):
        asked.append((setup.executor, tracker, key, trust_network))
        for workload in workloads:
            if workload.name == "Gelu":
                yield workload, Unknown(("the board died",))
            else:
                yield workload, fleet.Placed(Timing(3e-3, 0.01, 9, 1), ("127.0.0.1", 9091))

    monkeypatch.setattr(fleet, "measure", fleet_measure)
    monkeypatch.setattr(bench, "versions", lambda setup: "0.27")
    board = ["--target", "raspberry-pi-4", "--executor", "tvm", "--rpc", "127.0.0.1:9190", "--key", "pi"]
    code, (product, gelu) = ask(tmp_path, capsys, [PRODUCT, GELU], *board)
    assert code == 5
    assert asked == [("tvm", ("127.0.0.1", 9190), "pi", False)]
    assert (product["latency_s"], product["schedule"]) == (3e-3, "untuned")
    assert "pi at 127.0.0.1:9190" in product["reasons"][0]
    assert gelu["reasons"] == ["the board died"]
    ask(tmp_path, capsys, [PRODUCT], *board)
    assert len(asked) == 1, "what was measured is not measured again"


@pytest.mark.parametrize("rows", [[{**PRODUCT, "count": 0}], [{**PRODUCT, "inputs": [[2, 3], [4, 5]]}], ["no"]])
def test_every_wrong_line_is_named_with_its_file(tmp_path, capsys, of_a_millisecond, rows):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [PRODUCT, *rows]))
    assert main(["query", str(path), "--target", "auto", "--with", "measured"]) == 3
    assert f"{path}: line 2: " in capsys.readouterr().err
    assert not of_a_millisecond


def test_more_than_can_be_measured_are_refused_before_they_are_all_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(asking, "MAX_ROWS", 3)
    path = tmp_path / "q.jsonl"
    path.write_text((json.dumps(PRODUCT) + "\n") * 5)
    assert main(["query", str(path), "--target", "auto", "--with", "measured"]) == 3
    assert "more than 3 queries" in capsys.readouterr().err


@pytest.mark.slow
def test_every_operator_that_tvm_imports_has_a_specification_of_ours():
    """Nothing that TVM runs is unknown for want of a formula; where this ends, `backends/tvm/static.py` can count."""
    front = pytest.importorskip("tvm.relax.frontend.onnx.onnx_frontend")
    from onnxruntime.capi import _pybind_state

    known = {(schema.name, schema.domain) for schema in _pybind_state.get_all_operator_schema()}
    known |= {(schema.name, schema.domain) for schema in onnx.defs.get_all_schemas()}
    own = {(name, domain) for name, domain in known if domain in ("", "com.microsoft", "ai.onnx.ml")}
    imported = {(name, domain) for name, domain in own if name in front._get_convert_map()}
    assert len(imported) > 150
    assert not sorted(name for name, domain in imported if spec(name, domain) is None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_operator_is_measured_behind_a_tracker(tmp_path, capsys):
    pytest.importorskip("tvm")
    from eopt.backends.tvm.serve import local_fleet

    with local_fleet(1) as running:
        where = ["--rpc", f"127.0.0.1:{running.tracker[1]}", "--key", running.key]
        code, (product,) = ask(tmp_path, capsys, [PRODUCT], "--executor", "tvm", *where)
    assert (code, product["basis"], product["executor"], product["schedule"]) == (0, "measured", "tvm", "untuned")
    assert 0 < product["latency_s"] < 1


def test_one_operator_is_measured_here_and_then_known(capsys, monkeypatch):
    query = ["query", "--target", "auto", "--with", "measured", "--op", "MatMul", "--inputs", "64x64,64x64"]
    assert main([*query, "--dtype", "float32", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(bench, "worker", lambda setup: pytest.fail("a process was started"))
    assert main([*query, "--dtype", "float32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
