"""`eopt measure`: what is measured beside what is predicted, and one model against another."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends.base import Unknown
from eopt.backends.harness import process
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.meters.base import EnergyReading
from eopt.costmodel.datasets import table
from eopt.ir import onnx_out
from eopt.ir.errors import InputError, UsageError
from eopt.ir.text_parse import loads
from eopt.tools import against, measure
from eopt.tools.cli import main
from eopt.tools.measure import measure_model, measure_operators
from eopt.tools.report import measured
from eopt.tools.turns import SAME, SAVED, WORSE, compared_energy, compared_latency, in_turns, saved

sys.path.append(str(Path(__file__).parents[1] / "backends/meters"))  # the simulated meters

from simulated import Device, SimulatedMeter, VirtualClock

EXAMPLES = Path(__file__).parents[2] / "examples"
NO_METER = Unknown(("no meter in this test",))
SMALL = """model {"": 20}
input x: float32["batch", 64]
weight w: float32[64, 32] = normal(0)
m: float32["batch", 32] = MatMul(x, w)
y: float32["batch", 32] = Relu(m)
output y: float32["batch", 32]
"""
PLAIN = 'model {"": 20}\ninput x: float32[8, 8]\ny: float32[8, 8] = Relu(x)\noutput y: float32[8, 8]\n'

pytestmark = pytest.mark.usefixtures("small_model_in_use")


class Side:
    """A prepared model that takes known seconds and draws known power, in virtual time."""

    def __init__(self, device: Device, latency_s: float, load_w: float = 300.0, noise: float = 0.0, seed: int = 0):
        self.device, self.latency_s, self.load_w, self.noise = device, latency_s, load_w, noise
        self.rng = np.random.default_rng(seed)
        self.answer = {"y": np.arange(4.0)}

    def run(self, calls: int) -> float:
        self.device.load_w = self.load_w
        self.device.latency_s = self.latency_s * (1 + self.noise * float(self.rng.standard_normal()))
        return self.device.run(calls)

    def outputs(self):
        return self.answer


def two(before_s: float, after_s: float, before_w: float = 300.0, after_w: float = 300.0, noise: float = 0.01):
    """Two sides of one device, its clock, and a meter that reads it."""
    clock = VirtualClock()
    device = Device(clock, noise=0.002)
    sides = Side(device, before_s, before_w, noise, 1), Side(device, after_s, after_w, noise, 2)
    return *sides, clock, SimulatedMeter(device)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.onnx"
    onnx_out.write(loads(PLAIN), path)
    return path


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """The exit code, standard output and errors of a measurement with a cache of its own."""
    monkeypatch.setenv("EOPT_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["measure", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# -- the interval of what is saved


@pytest.mark.parametrize(("after_s", "verdict"), [(0.8e-3, SAVED), (1.2e-3, WORSE)])
def test_a_difference_beyond_the_noise_is_seen_with_the_truth_in_the_interval(after_s, verdict):
    one, other, clock, _ = two(1e-3, after_s)
    found = compared_latency(one, other, clock)
    assert found.verdict == verdict
    assert found.mean == pytest.approx(1e-3 - after_s, rel=0.1)
    assert found.pairs >= 10


@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
def test_equal_models_are_called_worse_as_seldom_as_the_interval_says(draw):
    rng, count = np.random.default_rng(0), 4000
    verdicts = [saved(1 + 0.05 * getattr(rng, draw)((20, 2))).verdict for _ in range(count)]
    assert verdicts.count(WORSE) / count < 0.025 + 3 * (0.025 * 0.975 / count) ** 0.5


def test_equal_models_in_turns_are_called_worse_as_seldom_too():
    count, verdicts = 200, []
    for seed in range(count):
        device = Device(VirtualClock())
        one, other = (Side(device, 1e-3, noise=0.01, seed=2 * seed + side) for side in (0, 1))
        verdicts.append(compared_latency(one, other, device.clock, seed).verdict)
    assert verdicts.count(WORSE) / count < 0.025 + 3 * (0.025 * 0.975 / count) ** 0.5


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1.0), st.floats(0.0, 0.1), st.integers(0, 1000))
def test_a_linear_drift_cancels_in_every_turn(latency_s, drift, seed):
    done = iter(range(10_000))

    def drifting() -> float:
        return latency_s * (1 + drift * next(done))

    pairs = in_turns(drifting, drifting, 12, VirtualClock(), seed)
    assert all(first == pytest.approx(second, rel=1e-12) for first, second in pairs)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0)), min_size=10, max_size=30))
def test_who_is_first_changes_the_sign_and_nothing_else(pairs):
    found, turned = saved(pairs), saved([(second, first) for first, second in pairs])
    assert turned.mean == pytest.approx(-found.mean)
    assert (turned.lo, turned.hi) == (pytest.approx(-found.hi), pytest.approx(-found.lo))
    assert found.lo <= found.mean <= found.hi


def test_turns_start_with_either_side_and_each_runs_twice_in_a_turn():
    order: list[str] = []
    in_turns(lambda: order.append("a") or 1.0, lambda: order.append("b") or 1.0, 16, VirtualClock())
    assert {"".join(order[at : at + 4]) for at in range(0, 64, 4)} == {"abba", "baab"}


def test_too_few_pairs_are_refused():
    with pytest.raises(UsageError, match="10 pairs"):
        saved([(1.0, 1.0)] * 9)


# -- joules


def test_joules_saved_are_those_of_the_device():
    one, other, clock, meter = two(1e-3, 1e-3, 300.0, 240.0, noise=0.0)
    found = compared_energy(one, other, meter, clock)
    assert found.verdict == SAVED
    assert found.mean == pytest.approx(60e-3, rel=0.05)


def test_a_faster_model_that_draws_more_joules_is_worse():
    one, other, clock, meter = two(1e-3, 0.9e-3, 200.0, 300.0)
    slow, joules = compared_latency(one, other, clock), compared_energy(one, other, meter, clock)
    found = against.Comparison(slow, joules, (), None, None)
    assert (slow.verdict, found.by, found.verdict) == (SAVED, "energy", WORSE)


def test_a_meter_that_fails_leaves_the_verdict_to_latency():
    one, other, clock, meter = two(1e-3, 0.8e-3)
    meter.dropped = 0.9
    joules = compared_energy(one, other, meter, clock)
    assert isinstance(joules, Unknown)
    found = against.Comparison(compared_latency(one, other, clock), joules, (), None, None)
    assert (found.by, found.verdict) == ("latency", SAVED)


def test_energy_of_an_operator_is_of_one_copy(monkeypatch):
    one, _, clock, meter = two(1e-3, 1e-3, noise=0.0)

    @contextmanager
    def fake(setup):
        yield SimpleNamespace(prepare=lambda workload: one)

    monkeypatch.setattr(process, "worker", fake)
    (found,) = measure.energies([Workload("x", b"", copies=4)], Setup("fake"), meter, clock=clock)
    assert isinstance(found, EnergyReading)
    assert found.energy_j == pytest.approx(0.3 / 4, rel=0.03)
    assert found.energy_j_lo < found.energy_j < found.energy_j_hi


def test_an_operator_the_executor_dies_of_has_no_energy_and_the_next_has(monkeypatch):
    one, _, clock, meter = two(1e-3, 1e-3, noise=0.0)

    def prepare(workload):
        if workload.name == "bad":
            raise InputError("died")
        return one

    @contextmanager
    def fake(setup):
        yield SimpleNamespace(prepare=prepare)

    monkeypatch.setattr(process, "worker", fake)
    found = measure.energies([Workload("bad", b""), Workload("good", b"1")], Setup("fake"), meter, clock=clock)
    assert found[0] == Unknown(("bad: died",))
    assert isinstance(found[1], EnergyReading)


# -- a model, and a list of operators


def test_a_model_is_measured_whole_and_by_kernel(tmp_path):
    found = measure_model(loads(SMALL), batch=8, cache=tmp_path, name="small", meter=NO_METER)
    assert not found.failed
    assert found.everything[0].name == "small"
    assert all(isinstance(one.latency, Timing) and one.error is not None for one in found.everything)
    assert found.latency_share > 0
    assert found.energy_closure == NO_METER
    assert found.without_energy == NO_METER.reasons
    rows = found.rows()
    assert [row["level"] for row in rows].count("model") == 1
    assert rows[0]["inputs"] == [[8, 64]]
    assert rows[0]["batch"] == 8
    assert all("energy_j" not in row for row in rows)


def test_queries_that_cannot_be_measured_are_named_and_the_rest_goes_on(tmp_path):
    queries = [
        {"op": "MatMul", "inputs": [[8, 64], [64, 32]], "dtype": "float32", "count": 3},
        {"op": "Reshape", "inputs": [[8, 64], [2]], "dtype": "float32"},
        {"op": "Relu", "inputs": [[8, 64]], "dtype": "bfloat16"},  # no such kernel in onnxruntime on a CPU
    ]
    found = measure_operators(queries, cache=tmp_path, meter=NO_METER)
    good, *bad = found.operators
    assert isinstance(good.latency, Timing)
    assert good.count == 3
    assert all(isinstance(one.latency, Unknown) for one in bad)
    assert [line.partition(":")[0] for line in found.failed] == ["line 2", "line 3"]
    assert [row["op"] for row in found.rows()] == ["MatMul"]


def test_a_malformed_query_is_named_by_its_line(command, tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"op": "Relu", "inputs": [[8]], "dtype": "float32"}\n{"op": "Relu"}\n')
    code, _, err = command(path)
    assert code == 3
    assert "line 2" in err


def test_everything_is_written_and_what_fails_ends_as_a_partial_result(command, tmp_path, monkeypatch):
    monkeypatch.setattr(measure.library, "find", lambda target: NO_METER)
    path, out = tmp_path / "q.jsonl", tmp_path / "out"
    lines = ('{"op":"Relu","inputs":[[8,64]],"dtype":"float32"}', '{"op":"Tile","inputs":[[8],[1]],"dtype":"float32"}')
    path.write_text("\n".join(lines) + "\n")
    code, text, _ = command(path, "--out", out)
    assert code == 5
    assert "energy unknown: no meter in this test" in text
    assert "line 2" in text
    report = json.loads((out / "measured.json").read_text())
    assert [one["latency_s"] is None for one in report["operators"]] == [False, True]
    assert report["operators"][0]["energy"] == {"energy_j": None, "reasons": list(NO_METER.reasons)}
    rows = table.read(out, ["measured"])
    assert list(rows["op"]) == ["Relu"]
    assert rows["energy_j"].isna().all()
    ET.fromstring((out / "measured.svg").read_text())


def test_json_is_one_document_with_the_worst_first(command, plain):
    code, text, err = command(plain, "--json")
    assert (code, err) == (0, "")
    report = json.loads(text)
    assert report["whole"]["latency_s"] > 0
    assert report["operators"][0]["where"] == "Relu"


def test_the_plot_has_a_point_for_every_operator_that_is_known_on_both_sides():
    known = {"where": "<a & b>", "predicted_s": {"mid": 2e-5}, "latency_s": 1e-5}
    unknown = {"where": "c", "predicted_s": None, "latency_s": 1e-5}
    report = {"model": "m", "target": "t", "executor": "e", "whole": None, "operators": [known, unknown]}
    tree = ET.fromstring(measured.svg(report))
    circles = [node for node in tree.iter() if node.tag.endswith("circle")]
    assert len(circles) == 1
    assert "<a & b>" in circles[0][0].text
    assert ET.fromstring(measured.svg({**report, "operators": []})) is not None


# -- one against another


@pytest.fixture
def sides(monkeypatch):
    """Replaces the process that measures by two sides; returns a function that sets their seconds."""
    found: dict[str, Side] = {}

    def set_to(before_s: float, after_s: float) -> dict[str, Side]:
        one, other, clock, _ = two(before_s, after_s)
        monkeypatch.setattr(against, "WallClock", lambda: clock)
        found.update(first=one, second=other)
        return found

    @contextmanager
    def fake(setup):
        left = iter((found["first"], found["second"]))
        yield SimpleNamespace(prepare=lambda workload, feed: next(left))

    monkeypatch.setattr(against, "worker", fake)
    monkeypatch.setattr(against.library, "find", lambda target: NO_METER)
    return set_to


@pytest.mark.parametrize(("after_s", "code", "verdict"), [(0.8e-3, 0, SAVED), (1e-3, 0, SAME), (1.2e-3, 6, WORSE)])
def test_the_exit_code_says_whether_it_is_worse_and_the_output_how_that_was_decided(
    command, plain, sides, after_s, code, verdict
):
    sides(1e-3, after_s)
    got, text, _ = command(plain, "--against", plain)
    assert got == code
    assert text.startswith(verdict)
    assert "by latency" in " ".join(text.split())
    assert "no meter in this test" in text
    assert "identical" in text


def test_against_as_json_holds_figures_intervals_and_differences(command, plain, sides, tmp_path):
    sides(1e-3, 0.8e-3)["second"].answer = {"y": np.array([0, 1, 2, 3.5])}
    code, text, _ = command(plain, "--against", plain, "--json", "--out", tmp_path / "out")
    report = json.loads(text)
    assert code == 0
    assert (report["verdict"], report["by"], report["energy_j"]) == (SAVED, "latency", None)
    assert report["latency_s"]["lo"] < report["latency_s"]["mean"] < report["latency_s"]["hi"]
    (output,) = report["outputs"]
    assert output["max_abs"] == 0.5
    assert output["sqnr_db"] == pytest.approx(10 * np.log10(14 / 0.25))
    assert report["predicted_saved_s"] == 0
    assert json.loads((tmp_path / "out/measured.json").read_text()) == report


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (PLAIN.replace("[8, 8]", "[8, 9]"), r"'x' is float32\[8, 8\] in the first model and float32\[8, 9\]"),
        (PLAIN.replace("float32", "float64"), "float64"),
        (PLAIN.replace("input x", "input z").replace("Relu(x)", "Relu(z)"), "only the first model has an input 'x'"),
    ],
)
def test_models_with_other_inputs_are_refused_and_the_input_is_named(changed, message):
    with pytest.raises(UsageError, match=message):
        against.same_inputs(loads(PLAIN), loads(changed), {})


def test_models_with_other_outputs_are_refused():
    with pytest.raises(UsageError, match="outputs: z"):
        against.differences({"y": np.ones(2)}, {"y": np.ones(2), "z": np.ones(2)})


def test_outputs_of_other_shapes_or_without_numbers_are_infinitely_far():
    far = against.differences({"y": np.ones(2), "z": np.ones(1)}, {"y": np.ones(3), "z": np.full(1, np.nan)})
    assert [one.max_abs for one in far] == [np.inf, np.inf]
    (same,) = against.differences({"y": np.full(2, np.nan)}, {"y": np.full(2, np.nan)})
    assert (same.max_abs, same.sqnr_db) == (0.0, np.inf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nvidia-l4"], "is not this machine"),
        (["--against", "other.onnx", "--tune", "4"], "leave out --tune"),
        (["--against", "o.onnx", "--rpc", "127.0.0.1:1", "--key", "k"], "leave out --rpc"),
        (["--tune", "4"], "no schedules to search"),
    ],
)
def test_what_cannot_be_measured_here_is_refused(command, plain, arguments, message):
    code, _, err = command(plain, *arguments)
    assert code == 2
    assert message in err


def test_a_model_against_itself_gives_identical_outputs(command, plain):
    code, text, _ = command(plain, "--against", plain, "--json")
    report = json.loads(text)
    assert code in (0, 6)  # times are those of a machine that others use
    assert report["latency_s"]["pairs"] >= 10
    assert [one["max_abs"] for one in report["outputs"]] == [0.0]


@pytest.mark.slow
def test_the_cnn_is_measured_with_all_its_kernels(command, tmp_path):
    code, text, _ = command(EXAMPLES / "cnn/model.onnx", "--json", "--out", tmp_path / "out")
    report = json.loads(text)
    assert code == 0
    assert report["model"] == "cnn"
    assert sum(one["count"] for one in report["operators"]) > 20
    assert table.read(tmp_path / "out", ["measured"])["latency_s"].gt(0).all()
