"""The sweep of a GPU, without one: simulated boards, made-up results, and every case in tiny shapes on the CPU."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu import measure, results, score, sweep
from benchmarks.gpu.board import Board
from benchmarks.gpu.cases import FAMILIES, ordered
from benchmarks.gpu.cases.base import FIRST, Case, Missing
from benchmarks.gpu.device import Cpu
from benchmarks.gpu.meter import QUICK, Budget, Load, Meter, energies, power, spread
from eopt.costmodel.records import record

CUDA = SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False))
BACKENDS = SimpleNamespace(cuda=CUDA, cudnn=SimpleNamespace(allow_tf32=True, benchmark=False))
TORCH = SimpleNamespace(no_grad=nullcontext, backends=BACKENDS)
"""As much of torch as a case without tensors needs."""
STATE = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85520809984, "default_limit_w": 700.0}
CASE_S = 1e-3
ENDLESS = 1e18


class Simulated:
    """A board of known power whose counter steps, a device whose calls take `CASE_S`, and the clock of both."""

    kind, l2_bytes = "cuda", 1

    def __init__(self, step_s: float = 0.02, busy_w: float = 400.0, idle_w: float = 70.0) -> None:
        self.now_s, self.joules, self.step_s = 0.0, 0.0, step_s
        self.shown, self.shown_s = 0.0, 0.0
        self.busy_w, self.idle_w = busy_w, idle_w

    def spend(self, seconds: float, watts: float) -> None:
        self.now_s, self.joules = self.now_s + seconds, self.joules + seconds * watts
        if self.now_s - self.shown_s >= self.step_s:
            self.shown, self.shown_s = self.joules, self.now_s

    def call(self) -> None:
        self.spend(CASE_S, self.busy_w)

    def energy_j(self) -> float:
        self.spend(1e-3 if self.busy_w == self.idle_w else 0.0, self.idle_w)
        return self.shown

    def sample(self) -> dict[str, float]:
        return {"sm_mhz": 1980.0}

    def mark(self) -> float:
        return self.now_s

    def wait(self, mark: float) -> None:
        assert mark <= self.now_s

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def meter(self, **changes: float) -> Meter:
        return Meter(self, self, replace(Budget(ramp_s=0.0), **changes), lambda: self.now_s)  # type: ignore[arg-type]


def case(name: str, fault: Exception | None = None, made: list[str] | None = None) -> Case:
    def make(torch: object, device: str):
        if made is not None:
            made.append(name)
        if fault:
            raise fault
        return lambda: None

    return Case(name, {"op": "Relu", "inputs": [[4]], "dtype": "float32"}, make)


def run(path: Path, cases: list[Case], end_s: float = ENDLESS, clock=lambda: 0.0) -> int:
    return sweep.sweep(TORCH, cases, Meter(Cpu(), Board(), QUICK), path, end_s, STATE, clock)


def kinds(path: Path) -> dict[str, str]:
    return {line["case"]: line["kind"] for line in results.read(path) if line["kind"] in results.ENDED}


@pytest.mark.parametrize("step_s", [0.01, 0.02, 0.1])
def test_energy_of_a_call_is_that_of_a_board_of_known_power(step_s):
    board = Simulated(step_s)
    meter = board.meter()
    meter.period_s = step_s
    windows = meter.windows(Load(board.call, 1), CASE_S)
    assert len(windows) == meter.budget.fewest  # they agree, so no more are needed
    assert all(window.seconds >= max(2.0, 50 * step_s) for window in windows)
    assert energies(windows) == pytest.approx([400.0 * CASE_S] * 3, rel=0.02)  # a chunk of 10 ms in 2 s
    assert [window.latency_s for window in windows] == pytest.approx([CASE_S] * 3)


def test_period_and_idle_power_are_inferred():
    board = Simulated(0.02, busy_w=70.0)
    meter = board.meter(idle_s=0.5)
    meter.settle()
    assert meter.period_s == pytest.approx(0.02, rel=0.1)
    assert meter.idle_w == pytest.approx(70.0, rel=0.02)


def test_a_counter_that_stands_still_gives_no_energy():
    board = Simulated(step_s=ENDLESS)
    meter = board.meter()
    assert energies(meter.windows(Load(board.call, 1), CASE_S)) == []


def test_a_counter_that_goes_back_gives_no_power():
    assert power([(0.0, 10.0), (1.0, 20.0), (2.0, 5.0)]) is None
    assert power([(0.0, 10.0)]) is None


@given(st.floats(0.01, 1e3), st.lists(st.floats(1.0, 100.0), min_size=2, max_size=5))
def test_a_relative_spread_does_not_depend_on_the_unit(factor, values):
    scaled = spread([factor * value for value in values])
    assert scaled == pytest.approx(spread(values), rel=1e-6, abs=1e-9)


def test_a_board_is_read_and_never_set():
    asked = []

    class Nvml:
        def __getattr__(self, name):
            if not name.startswith("nvml"):
                raise AttributeError(name)

            def function(*arguments):
                asked.append(name)
                target = arguments[-1] if arguments else None
                if name == "nvmlDeviceGetTemperature":
                    return 3  # NVML_ERROR_NOT_SUPPORTED
                if hasattr(target, "_obj") and hasattr(target._obj, "value"):
                    target._obj.value = 5000
                return 0

            return function

    board = Board(Nvml(), "GPU-1")
    assert board.energy_j() == 5.0
    assert board.state()["power_limit_w"] == 5.0
    sample = board.sample()
    assert sample["temperature_c"] is None  # not 0
    assert sample["throttle"] == ["hardware slowdown", "power brake", "display clocks"]  # 5000 = 0x1388
    assert not [name for name in asked if "Set" in name or "Reset" in name]


def test_a_machine_without_nvml_says_nothing():
    board = Board()
    assert board.energy_j() is None
    assert set(board.state().values()) == {None}
    assert set(board.sample().values()) == {None}


def test_a_case_done_is_not_done_again(tmp_path):
    path, made = tmp_path / "r.jsonl", []
    cases = [case("x/a", made=made), case("x/b", Missing("no such kernel"), made), case("x/c", ValueError("odd"), made)]
    assert run(path, cases) == 0
    assert kinds(path) == {"x/a": "measured", "x/b": "skipped", "x/c": "failed"}
    once = list(made)
    assert run(path, cases) == 0
    assert made == once
    assert [line["call"] for line in results.read(path) if line["kind"] == results.BOARD] == [1, 1, 2, 2]


def test_energy_is_null_where_nothing_counts(tmp_path):
    run(tmp_path / "r.jsonl", [case("x/a")])
    line = next(line for line in results.read(tmp_path / "r.jsonl") if line["kind"] == results.MEASURED)
    assert line["latency_s"] > 0
    assert {line[name] for name in ("energy_j", "energy_net_j", "power_w", "energy_spread", "energy_scope")} == {None}


@given(st.integers(1, 2000))
def test_a_cut_file_loses_at_most_one_case(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "r.jsonl"
    names = [f"x/{place}" for place in range(4)]
    for name in names:
        results.append(path, {"kind": results.BEGUN, "case": name})
        results.append(path, {"kind": results.MEASURED, "case": name})
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    left = path.read_bytes().count(b'"measured", "case"')
    kept = results.done(path)
    assert left - 1 <= len(kept) <= left
    results.append(path, {"kind": results.MEASURED, "case": "x/new"})
    assert results.done(path) == kept | {"x/new"}  # a torn line does not swallow the next


def test_a_cut_case_is_measured_again_but_not_for_ever(tmp_path):
    path = tmp_path / "r.jsonl"
    for tries in range(1, results.TRIES + 1):
        results.append(path, {"kind": results.BEGUN, "case": "x/crash", "call": tries})
        assert ("x/crash" in results.done(path)) == (tries == results.TRIES)


def test_the_deadline_is_kept(tmp_path):
    ticks = count(step=10)
    path = tmp_path / "r.jsonl"
    run(path, [case(f"x/{place}") for place in range(50)], end_s=100.0, clock=lambda: next(ticks))
    assert len(kinds(path)) == 5  # 20 s each: one as they begin, one as they end; the last begins where it still ends
    run(path, [case(f"x/{place}") for place in range(50)], end_s=-1.0)
    assert len(kinds(path)) == 5


def test_an_error_that_breaks_the_device_asks_for_a_new_process(tmp_path):
    path = tmp_path / "r.jsonl"
    cases = [case("x/bad", RuntimeError("CUDA error: an illegal memory access")), case("x/good")]
    assert run(path, cases) == sweep.AGAIN
    assert kinds(path) == {"x/bad": "failed"}
    assert run(path, cases) == 0
    assert kinds(path) == {"x/bad": "failed", "x/good": "measured"}


def test_results_of_a_later_day_go_into_the_same_file(tmp_path):
    first = results.place(tmp_path, "NVIDIA H100", "2.11.0+cu130", "2026-01-01")
    assert first.name == "nvidia-h100-torch-2.11.0-2026-01-01.jsonl"
    first.touch()
    assert results.place(tmp_path, "NVIDIA H100", "2.11.0+cu130", "2026-01-02") == first
    assert results.place(tmp_path, "NVIDIA H100", "2.12.0", "2026-01-02") != first


@pytest.mark.parametrize("minutes", ["0", "11", "nan"])
def test_more_than_ten_minutes_are_refused(minutes):
    with pytest.raises(SystemExit) as stopped:
        sweep.main(["--minutes", minutes])
    assert stopped.value.code == 2


@pytest.mark.parametrize("quick", [False, True])
def test_every_operator_is_a_cost_query(quick):
    cases = ordered(quick)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.family for case in cases} == {family.__name__.rpartition(".")[2] for family in FAMILIES}
    for case in cases:
        if case.level == "operator":
            assert isinstance(record(case.query), tuple), case.name


def test_the_first_rank_covers_every_family_in_one_call():
    first = [case for case in ordered() if case.rank == FIRST]
    assert len({case.family for case in first}) == len(FAMILIES)
    assert len({case.family for case in first[: 2 * len(FAMILIES)]}) == len(FAMILIES)
    assert len(first) < 60  # of eight seconds each


def made_up(path: Path) -> None:
    run(path, [])
    for case in ordered(quick=False):
        if case.level != "operator":
            continue
        figures = {"launch": "eager", "latency_s": 1e-3, "power_w": 300.0, "energy_j": 0.3, "energy_scope": "board"}
        if case.family == "attention":
            figures |= {"launch": "graph", "latency_eager_s": 2e-3}
        if case.family == "norm":
            figures |= {"power_w": None, "energy_j": None, "energy_scope": None}
        results.append(path, {"kind": results.MEASURED, "case": case.name, **sweep._spelling(case), **figures})
    attrs = {"stage": "after"}
    model = {"level": "model", "variant": "", "attrs": attrs, "executor": "torch", "latency_s": 1.0, "energy_j": 2.0}
    results.append(
        path, {"kind": results.MEASURED, "case": "m", **model, "predicted_latency_s": 1.5, "predicted_energy_j": None}
    )


def test_the_shipped_model_is_scored_beside_prior_and_roofline(tmp_path, capsys):
    path = tmp_path / "h100.jsonl"
    made_up(path)
    assert score.main([str(path)]) == 0
    written = json.loads((tmp_path / "h100.scores.json").read_text())
    assert written["target"] == "nvidia-h100-sxm"
    found = {(row["family"], row["dtype"], row["launch"], row["quantity"], row["method"]): row for row in
             written["scores"]}  # fmt: skip
    assert found["models", "after", "torch", "latency", "eopt"]["median_ape"] == pytest.approx(50)
    assert ("models", "after", "torch", "energy", "eopt") not in found
    for method in ("eopt", "prior", "roofline"):
        row = found["gemm", "bfloat16", "eager", "energy", method]
        assert 0 < row["median_ape"] < 1e6
        assert row["rows"] == found["gemm", "bfloat16", "eager", "latency", method]["rows"] > 10
        assert ("norm", "bfloat16", "eager", "energy", method) not in found  # no joules were read
        assert found["attention", "bfloat16", "graph", "latency", method]["rows"] == 20
        assert found["attention", "bfloat16", "eager", "latency", method]["rows"] == 20
        assert ("attention", "bfloat16", "eager", "energy", method) not in found
    assert "roofline" in capsys.readouterr().out


def test_a_roofline_is_scored_exactly(tmp_path):
    path = tmp_path / "one.jsonl"
    big = next(case for case in ordered() if case.name == "gemm/dense/bfloat16/8192x8192x8192")
    figures = {"launch": "eager", "latency_s": 2 * 2 * 8192**3 / 989.4e12, "power_w": 350.0, "energy_scope": "board"}
    results.append(path, {"kind": results.MEASURED, "case": big.name, **sweep._spelling(big), **figures})
    from eopt.costmodel.prior import Prior

    found = score.scores(list(results.read(path)), "nvidia-h100-sxm", Prior())
    row = {(row["family"], row["quantity"], row["method"]): row for row in found}
    assert row["gemm", "latency", "roofline"]["median_ape"] == pytest.approx(50, rel=0.01)
    assert row["gemm", "energy", "roofline"]["median_ape"] < 1  # half the time at twice the power: 700 W


def test_what_cannot_be_scored_is_refused(tmp_path, capsys):
    path = tmp_path / "none.jsonl"
    assert score.main([str(path)]) == 3
    assert "--target" in capsys.readouterr().err
    assert score.main([str(path), "--target", "nvidia-l4"]) == 3
    assert score.main([str(path), "--target", "nvidia-l4", "--cost-model", str(tmp_path / "no")]) == 3
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.slow
def test_every_section_runs_on_a_cpu_or_says_what_is_missing(tmp_path):
    path = tmp_path / "cpu.jsonl"
    assert sweep.main(["--device", "cpu", "--quick", "--results", str(path)]) == 0
    found = {line["case"]: line for line in results.read(path) if line["kind"] in results.ENDED}
    assert set(found) == {case.name for case in ordered(quick=True)}
    assert not [line for line in found.values() if line["kind"] == results.FAILED]
    skipped = {name for name, line in found.items() if line["kind"] == results.SKIPPED}
    assert {name for name in skipped if "cudnn" in name or "sparse24" in name}
    assert len(skipped) < len(found) / 4
    assert all(line["energy_j"] is None for line in found.values() if line["kind"] == results.MEASURED)
    assert found["models/cnn/after/torch/2"]["predicted_energy_j"] > 0
    size = path.stat().st_size
    assert sweep.main(["--device", "cpu", "--quick", "--results", str(path)]) == 0
    assert results.done(path) == set(found)
    assert b'"begun"' not in path.read_bytes()[size:]


@pytest.mark.slow
def test_the_transformer_computes_what_its_compiled_form_computes():
    import eopt
    from benchmarks.gpu.cases.transformer import encoder
    from eopt.ir import onnx_io
    from eopt.ir.specialize import specialize

    model = specialize(onnx_io.from_proto(encoder(layers=1, width=48, heads=4, length=8)), {"batch": 2})
    result = eopt.compile(model, "simplify,fuse")
    assert not result.compiled.violated
    assert "Attention" in {op.op for op in result.model.leaves()}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul", "skipped"),
        ("No available kernel. Aborting execution.", "skipped"),
        ("CUDA out of memory", "failed"),
    ],
)
def test_a_missing_kernel_is_told_from_a_fault(tmp_path, message, kind):
    path = tmp_path / "r.jsonl"
    assert run(path, [case("x/a", RuntimeError(message))]) == 0
    assert kinds(path) == {"x/a": kind}


def test_copies_hold_twice_the_cache():
    made = []
    device = Simulated()
    device.l2_bytes = 1000
    device.allocated, device.room = lambda: 300 * len(made), lambda: 10**6
    device.capture = lambda work: None
    one = replace(case("x/a", made=made), graph=False)
    meter = device.meter(window_s=0.01, fewest=2, trials=2)
    found = measure._copies(TORCH, one, meter)
    assert len(found) == 7  # 2000 bytes in copies of 300


def test_whole_models_without_eopt_are_skipped_by_name(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    monkeypatch.setitem(sys.modules, "eopt.backends", None)  # as where its dependencies are not installed
    assert run(path, [case for case in ordered(quick=True) if case.family == "models"]) == 0
    found = [line for line in results.read(path) if line["kind"] in results.ENDED]
    assert {line["kind"] for line in found} == {"skipped"}
    assert all("whole models need eopt" in line["reason"] for line in found)


def test_settings_of_torch_are_put_back():
    from benchmarks.gpu.cases.base import float32

    place = BACKENDS.cuda.matmul, BACKENDS.cudnn
    before = [dict(vars(part)) for part in place]
    for math, expected in (("ieee", (False, False)), ("tf32", (True, True)), ("default", (False, True))):
        with float32(TORCH, math):
            assert tuple(part.allow_tf32 for part in place) == expected
        assert [vars(part) for part in place] == before


@pytest.mark.parametrize(("kernel_s", "launch"), [(2e-6, "graph"), (20e-6, "eager")])
def test_a_graph_stands_for_a_call_that_the_host_launches_too_slowly(kernel_s, launch):
    board, host_s = Simulated(), 20e-6
    board.allocated, board.room = lambda: 0, lambda: 10**6
    board.capture = lambda work: lambda: board.spend(2 * kernel_s, 400.0)  # of two copies
    one = replace(case("x/a"), make=lambda torch, device: lambda: board.spend(host_s, 100.0))
    found = measure.measured(TORCH, one, board.meter())
    assert found["launch"] == launch
    assert found["latency_s"] == pytest.approx(min(kernel_s, host_s))
    assert found["energy_j"] == pytest.approx(kernel_s * 400.0 if launch == "graph" else host_s * 100.0, rel=0.02)
    assert found["latency_eager_s"] == pytest.approx(host_s)
