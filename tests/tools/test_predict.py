"""`eopt predict` beyond one execution: training, captured graphs, a served load, whole runs, other cost models."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eopt
from eopt.backends import executor as executors
from eopt.costmodel import artifact, registry
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Cost, Interval, Unknown
from eopt.ir.errors import UsageError
from eopt.ir.text_parse import loads
from eopt.tools.cli import main
from eopt.tools.predict import predict_serving
from eopt.tools.report import tree

EXAMPLES = Path(__file__).parents[2] / "examples"
CNN, VIT = EXAMPLES / "cnn/model.onnx", EXAMPLES / "vit/model.onnx"
A100 = "nvidia-a100-80gb-sxm"
SCHEMA = json.loads(files("eopt.tools.report").joinpath("schema.json").read_text())
FIXED = 'model {"": 20}\ninput x: float32[8, 8]\ny: float32[8, 8] = Relu(x)\noutput y: float32[8, 8]\n'

pytestmark = pytest.mark.usefixtures("small_model_in_use")


@pytest.fixture
def predict(capsys):
    """The exit code, standard output and errors of a prediction."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["predict", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def report(predict):
    """The valid report of a prediction."""

    def of(*arguments: object) -> tree.Json:
        code, out, err = predict(*arguments, "--json")
        assert (code, err) == (0, "")
        document = json.loads(out)
        jsonschema.Draft202012Validator(SCHEMA).validate(document)
        return document

    return of


# -- training


def test_a_step_of_training_by_part_and_module(report):
    found = report(CNN, "--target", A100, "--batch", 64, "--phase", "training")
    priced, where = found["before"], found["situation"]
    assert (where["phase"], where["optimizer"], where["executor"]) == ("training", "adamw", "torch")
    parts = priced["parts"]
    for name in ("energy_j", "latency_s"):
        assert sum(part[name]["mid"] for part in parts.values()) == pytest.approx(priced["operators"][name]["mid"])
    for _, module in tree.modules(priced["tree"]):
        assert sum(part["energy_j"] for part in module["parts"].values()) == pytest.approx(module["energy_j"])
    total = sum(op["parts"]["backward"]["latency_s"] for op in tree.operators(priced["tree"]))
    assert total == pytest.approx(parts["backward"]["latency_s"]["mid"])
    forward = report(CNN, "--target", A100, "--batch", 64, "--executor", "torch")["before"]
    assert parts["forward"]["energy_j"]["mid"] == pytest.approx(forward["operators"]["energy_j"]["mid"])
    assert forward["parts"] is None


def test_the_terminal_shows_the_parts_of_a_step(predict):
    _, out, _ = predict(CNN, "--target", A100, "--phase", "training", "--optimizer", "sgd", "--depth", 1)
    assert "a step of training with sgd" in out
    assert all(f"{part} " in out for part in ("forward", "backward", "optimizer"))


def test_a_run_is_its_steps(report, predict):
    step = ("--target", A100, "--phase", "training")
    one = report(CNN, *step)["before"]
    run = report(CNN, *step, "--run", "steps=9000", "--price", 0.25, "--carbon", 380)["run"]
    assert run["duration_s"]["mid"] == pytest.approx(9000 * one["latency_s"]["mid"])
    assert run["energy_j"]["hi"] == pytest.approx(9000 * one["energy_j"]["hi"])
    assert run["money"]["mid"] == pytest.approx(0.25 * run["energy_kwh"]["mid"])
    assert run["co2e_kg"]["mid"] == pytest.approx(0.38 * run["energy_kwh"]["mid"])
    assert report(CNN, *step, "--run", "steps=1")["run"]["money"] is None
    assert "run of 10 steps" in predict(CNN, *step, "--run", "steps=10")[1]


@pytest.mark.slow
def test_an_architecture_is_trained_over_all_its_tokens(report, tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gpt2", "n_embd": 256, "n_layer": 2, "n_head": 4, "vocab_size": 5000}))
    ask = (path, "--target", A100, "--phase", "training", "--bind", "batch=8,seq=256", "--run", "steps=7")
    found = report(*ask)
    parts = {name: part["latency_s"]["mid"] for name, part in found["before"]["parts"].items()}
    assert 1 < parts["backward"] / parts["forward"] < 4, "two products for one, and little else"
    assert sum(parts.values()) == pytest.approx(found["before"]["operators"]["latency_s"]["mid"])
    assert found["run"]["duration_s"]["mid"] == pytest.approx(7 * found["before"]["latency_s"]["mid"])


# -- captured graphs


@pytest.mark.parametrize("name", ["torch", "torch-compile", "onnxruntime-cuda", "tensorrt", "vllm"])
@pytest.mark.parametrize("model", [CNN, VIT])
@pytest.mark.parametrize("answers", [None, Prior()])
def test_a_captured_graph_is_never_slower(name, model, answers):
    (launched, _), (captured, where) = (
        eopt.predict(model, A100, executor=name, graph=graph, cost_model=answers) for graph in (False, True)
    )
    assert where.executor.captured
    assert where.executor.launch_s <= executors.load(name).launch_s
    assert captured.latency_s.mid <= launched.latency_s.mid
    assert captured.energy_j.mid <= launched.energy_j.mid * (1 + 1e-12)
    assert 0 <= captured.launch_share <= 1
    for uid, cost in captured.known.items():
        assert cost.latency_s.mid <= launched.known[uid].latency_s.mid


def test_the_report_says_who_launches(report, predict):
    assert report(VIT, "--target", A100, "--executor", "torch")["situation"]["launches"] == "host"
    assert report(VIT, "--target", A100, "--executor", "torch", "--graph")["situation"]["launches"] == "graph"
    assert "torch in a captured graph" in predict(VIT, "--target", A100, "--executor", "torch", "--graph")[1]


# -- what the joules are


def test_launches_and_the_residual_are_visible(report, predict):
    priced = report(VIT, "--target", A100)["before"]
    prior, _ = eopt.predict(VIT, A100, cost_model=Prior())
    assert prior.whole is None and prior.energy_j == prior.operators_j
    for name, alone in (("energy_j", prior.energy_j), ("latency_s", prior.latency_s)):
        sums = priced["operators"][name]["mid"]
        assert sums == pytest.approx(priced["tree"][name])
        assert priced[name]["mid"] == pytest.approx(sums + priced["residual"][name])
        assert sums - priced["learned"][name] == pytest.approx(alone.mid)
    assert 0 < priced["launch_j"] < priced["operators"]["energy_j"]["mid"]
    _, out, _ = predict(VIT, "--target", A100)
    assert "of the joules are kernels" in out
    assert "operators" in out and "residual" in out
    assert "learned beyond the physics prior" in out


def test_the_prior_has_neither_a_residual_nor_anything_learned(report, predict):
    """The network does not answer for CPUs, so the difference is nothing; a prior that was asked for has none."""
    priced = report(VIT, "--target", "cpu-intel-xeon-ice-lake")["before"]
    assert priced["residual"] is None and priced["learned"] == {"energy_j": 0, "latency_s": 0}


# -- a load


def test_a_load_on_one_device(report, predict):
    ask = (CNN, "--target", "nvidia-l4", "--load", 50, "--slo", 1000, "--price", 0.25, "--carbon", 380)
    serving = report(*ask)["serving"]
    each = serving["each"]
    assert (serving["devices"], serving["slo_s"], serving["qps"]) == (1, 1.0, 50)
    assert each["latency_mean_s"] < each["latency_p99_s"] <= 1.0
    assert serving["sustained_qps"] > 50
    assert each["request_j"]["mid"] == pytest.approx(serving["power_w"]["mid"] / 50, rel=0.05)  # sampled arrivals
    month = serving["month"]
    assert month["energy_kwh"]["mid"] == pytest.approx(serving["power_w"]["mid"] * 730.5 / 1000)
    assert month["money"]["mid"] == pytest.approx(0.25 * month["energy_kwh"]["mid"])
    _, out, _ = predict(*ask)
    assert all(said in out for said in ("serving 50 requests/s", "kWh", "kg CO2e", "a request with idle time"))


def test_a_load_that_needs_several_devices_says_how_many_and_what_one_sustains(report, predict):
    one = report(CNN, "--target", "nvidia-l4", "--load", 1)["serving"]["sustained_qps"]
    ask = (CNN, "--target", "nvidia-l4", "--load", round(3.5 * one))
    serving = report(*ask)["serving"]
    assert serving["devices"] == 4
    assert serving["sustained_qps"] == one
    assert serving["month"]["money"] is None
    code, out, _ = predict(*ask)
    assert code == 0
    assert "one device sustains" in out
    assert "need 4 devices" in out


def test_an_objective_that_no_number_of_devices_holds(report, predict):
    ask = (CNN, "--target", "nvidia-l4", "--load", 1, "--slo", 0.0001)
    serving = report(*ask)["serving"]
    assert (serving["devices"], serving["each"], serving["power_w"], serving["month"]) == (None, None, None, None)
    code, out, _ = predict(*ask)
    assert (code, "no number of devices helps" in out) == (0, True)


def test_batch_bounds_the_batches_of_a_load(report):
    each = report(CNN, "--target", "nvidia-l4", "--load", 50, "--batch", 3)["serving"]["each"]
    assert each["max_batch"] == 3
    assert each["largest_batch"] <= 3


@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(1, 300))
def test_a_larger_batch_takes_no_less(one, other):
    small, large = (
        eopt.predict(MODEL, A100, batch=size, cost_model=Prior())[0].latency_s.mid for size in sorted((one, other))
    )
    assert small <= large * (1 + 1e-9)


MODEL = eopt.read(CNN)


def test_nothing_that_can_be_priced():
    model = loads('model {"": 20}\ninput x: float32[n]\ny: float32[n] = com.acme.Foo(x)\noutput y: float32[n]')
    _, situation = eopt.predict(model, "nvidia-l4")
    with pytest.raises(UsageError, match="nothing of the model can be priced"):
        predict_serving(model, situation, 10)


def test_queries_have_no_extents_to_bind(capsys):
    assert main(["query", "--target", A100, "--batch", "8"]) == 2
    assert "unrecognized arguments: --batch" in capsys.readouterr().err


class Small(Prior):
    """Knows only kernels of a few elements."""

    def query(self, kernel, target, executor):
        return super().query(kernel, target, executor) if kernel.elements < 1000 else Unknown(("too large",))


def test_a_batch_that_is_priced_in_part_is_no_cheap_batch():
    model = loads('model {"": 20}\ninput x: float32[n, 8]\ny: float32[n, 8] = Relu(x)\noutput y: float32[n, 8]')
    _, situation = eopt.predict(model, "nvidia-l4", cost_model=Small())
    with pytest.raises(UsageError, match="at batch 128 fewer operators can be priced"):
        predict_serving(model, situation, 10)
    assert predict_serving(model, situation, 10, batch=64).devices == 1


# -- other cost models


class Flat:
    """A second and ten joules for everything."""

    def query_many(self, kernels, target, executor):
        interval = Interval(1.0, 0.5, 2.0)
        joules = Interval(10.0, 5.0, 20.0)
        found = Prior().query_many(kernels, target, executor)
        return [Cost(interval, joules, "board", cost.basis, {}, 0.0) for cost in found if isinstance(cost, Cost)]


@pytest.fixture
def acme(monkeypatch):
    loaded = registry.Foreign("acme", Flat())
    monkeypatch.setattr(registry, "load", lambda name: loaded)


def test_an_installed_cost_model_prices_models(report, predict, acme):
    found = report(CNN, "--target", A100, "--model", "acme")
    kernels = len(tree.kernels(found["before"]["tree"]))
    assert found["situation"]["cost_model"] == "acme"
    assert found["before"]["latency_s"]["mid"] == pytest.approx(kernels)
    assert found["before"]["launch_j"] is None, "a model that has no terms does not tell launches apart"
    assert "by acme" in predict(CNN, "--target", A100, "--model", "acme")[1]


def test_an_installed_cost_model_answers_queries(capsys, acme):
    query = ("query", "--target", A100, "--op", "Relu", "--inputs", "8x8", "--dtype", "float16", "--model", "acme")
    assert main([*query, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["energy_j"] == 10.0


def test_a_folder_prices_as_the_variable_does(report, tmp_path):
    artifact.save(artifact.shipped(), tmp_path)
    named, usual = (report(CNN, "--target", A100, *more)["before"] for more in (("--model", tmp_path), ()))
    assert named["energy_j"] == usual["energy_j"]


# -- wrong command lines

LOADED = ("--target", A100, "--load", "10")
TRAINS = ("--target", A100, "--phase", "training")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", A100, "--slo", "5"), "--slo needs --load"),
        (("--target", A100, "--run", "steps=5"), "--run needs --phase training"),
        (("--target", A100, "--optimizer", "sgd"), "--optimizer needs --phase training"),
        (("--target", A100, "--price", "1"), "--price and --carbon need --load or --run"),
        ((*TRAINS, "--load", "10"), "--load serves executions"),
        ((*TRAINS, "--optimizer", "adam"), "no optimizer 'adam'; known are adamw, sgd"),
        ((*TRAINS, "--run", "epochs=5"), "--run epochs=5: expected steps=N"),
        ((*TRAINS, "--run", "steps=0"), "expected steps=N"),
        ((*TRAINS, "--executor", "tensorrt"), "executor tensorrt does not train; torch, torch-compile do"),
        (("--target", A100, "--executor", "tvm", "--graph"), "executor tvm captures no graphs"),
        (("--target", "cpu-intel-xeon-ice-lake", "--graph"), "is none"),
        ((*LOADED, "--bind", "batch=4"), "no symbolic dim of the inputs counts samples"),
        (("--target", A100, "--load", "0"), "no positive number"),
        (("--target", A100, "--model", "nowhere"), "no cost model 'nowhere'"),
        (("--load", "10"), "a prediction needs a target"),
        (("--phase", "training"), "a prediction needs a target"),
    ],
)
def test_wrong_command_lines(predict, arguments, said):
    code, out, err = predict(CNN, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_load_needs_a_symbolic_batch():
    model = loads(FIXED)
    _, situation = eopt.predict(model, "nvidia-l4")
    with pytest.raises(UsageError, match="--load: no symbolic dim"):
        predict_serving(model, situation, 10)


def test_a_load_of_an_architecture(predict, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code, _, err = predict(tmp_path / "config.json", *LOADED)
    assert (code, "--load needs a model with a symbolic batch" in err) == (2, True)
