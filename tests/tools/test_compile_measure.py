"""`eopt compile --measure`: what measures worse is rolled back, and the report says so."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import onnx
import pytest

from eopt.backends.base import Unknown
from eopt.ir import onnx_out
from eopt.ir.errors import UsageError
from eopt.ir.text_parse import loads
from eopt.passes.base import Outcome
from eopt.passes.pipeline import Compiled, Step
from eopt.tools import against
from eopt.tools.against import Comparison
from eopt.tools.cli import main
from eopt.tools.compile import compile_model
from eopt.tools.proving import prove
from eopt.tools.turns import Saved

SCHEMA = json.loads(files("eopt.tools.report").joinpath("schema.json").read_text())
TEXT = """model {"": 20}
input x: float32[8, 8]
i: float32[8, 8] = Identity(x)
r: float32[8, 8] = Relu(i)
y: float32[8, 8] = Relu(r)
output y: float32[8, 8]
"""
VERDICTS = {"saved": (0.9, 0.08, 0.12), "no difference": (1.0, -0.02, 0.02), "worse": (1.1, -0.12, -0.08)}

pytestmark = pytest.mark.usefixtures("small_model_in_use")


def comparison(verdict: str) -> Comparison:
    after, lo, hi = VERDICTS[verdict]
    return Comparison(Saved(1.0, after, 1 - after, lo, hi, 20), Unknown(("no meter",)), (), None, None)


def model(name: str):
    return loads(f'model {{"": 20}}\ninput x: float32[8]\n{name}: float32[8] = Relu(x)\noutput {name}: float32[8]\n')


def proven(*verdicts: str):
    """Passes a, b, … on a model, with the verdicts measured in turn, and what was compared with what."""
    models = [model(name) for name in "oabcd"[: len(verdicts) + 1]]
    steps = tuple(Step(name, Outcome(found)) for name, found in zip("abcd", models[1:], strict=False))
    left, asked = iter(verdicts), []

    def compare(before, after):
        asked.append((before.outputs[0].id, after.outputs[0].id))
        return comparison(next(left, "saved"))

    return prove(Compiled(models[0], models[-1], steps), compare), asked


@pytest.mark.parametrize(
    ("verdicts", "kept", "result", "asked"),
    [
        (["saved"], [True], "a", ["oa"]),
        (["no difference"], [True], "a", ["oa"]),
        (["worse"], [False], "o", ["oa"]),
        (["saved", "worse"], [True, False], "a", ["oa", "ab", "oa"]),
        (["worse", "worse"], [False, False], "o", ["oa", "ob"]),
        (["worse", "saved"], [True, True], "b", ["oa", "ob", "ob"]),
        (["saved", "worse", "saved"], [True, True, True], "c", ["oa", "ab", "ac", "oc"]),
    ],
)
def test_passes_are_kept_up_to_the_last_that_is_not_worse_than_the_last_good_model(verdicts, kept, result, asked):
    found, compared = proven(*verdicts)
    assert [step.kept for step in found.compiled.steps] == kept
    assert found.compiled.model.outputs[0].id == result
    assert ["".join(pair) for pair in compared] == asked
    assert (found.whole is None) == (result == "o")


def test_a_pass_that_is_rolled_back_says_what_was_measured():
    found, _ = proven("worse")
    (step,) = found.compiled.steps
    assert "1.1 s on 'this machine' misses 1 s" in str(step.verdict)
    assert step.outcome.notes[-1].startswith("measured: worse: 1 s before, 1.1 s after")


def test_a_pass_that_changed_nothing_is_not_measured():
    only = model("o")
    found = prove(Compiled(only, only, (Step("a", Outcome(only)),)), lambda *_: pytest.fail("nothing to compare"))
    assert found.trials == ()
    assert found.compiled.model is only


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """Compiles `TEXT` with the verdict that is measured; the exit code, the output, and what was written."""
    path = tmp_path / "in.onnx"
    onnx_out.write(loads(TEXT), path)

    def run(verdict: str, *more: str):
        monkeypatch.setattr(against, "compare", lambda before, after, **_: comparison(verdict))
        arguments = [str(path), "--passes", "simplify", "--no-gate", "--target", "auto", "--measure", *more]
        code = main(["compile", *arguments, "--out", str(tmp_path / "out")])
        report = json.loads((tmp_path / "out/report.json").read_text())
        jsonschema.Draft202012Validator(SCHEMA).validate(report)
        return code, capsys.readouterr().out, report, (path, tmp_path / "out/model.onnx")

    return run


def test_what_measures_worse_is_rolled_back_and_the_input_is_written_unchanged(command):
    code, text, report, (given, written) = command("worse")
    assert code == 0
    assert onnx.load(written) == onnx.load(given)
    assert [step["kept"] for step in report["passes"]] == [False]
    assert any("rolled back" in warning and "this machine" in warning for warning in report["warnings"])
    assert "the input is written unchanged" in " ".join(text.split())


def test_what_measures_better_is_kept_with_its_figures(command):
    code, text, report, (given, written) = command("saved")
    assert code == 0
    assert len(onnx.load(written).graph.node) < len(onnx.load(given).graph.node)
    assert any(note.startswith("measured: saved") for note in report["passes"][0]["notes"])
    assert "measured in all: saved" in text


def test_the_library_says_what_was_measured(monkeypatch):
    monkeypatch.setattr(against, "compare", lambda before, after, **_: comparison("worse"))
    result = compile_model(loads(TEXT), "simplify", target="auto", gate=False, measure=True)
    assert result.proven is not None
    assert [found.verdict for _, found in result.proven.trials] == ["worse"]
    assert not result.violated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a target"),
        ({"target": "nvidia-l4"}, "is not this machine"),
        ({"target": "auto", "executor": "vllm"}, "cannot be measured|not installed|executor"),
    ],
)
def test_measuring_is_of_this_machine_and_its_executors(options, message):
    with pytest.raises(UsageError, match=message):
        compile_model(loads(TEXT), "simplify", measure=True, **options)


def test_the_result_runs_in_turns_with_the_original(tmp_path):
    path = tmp_path / "in.onnx"
    onnx_out.write(loads(TEXT), path)
    result = compile_model(path, "simplify", target="auto", gate=False, measure=True)
    (_, found), *_ = result.proven.trials
    assert found.latency.pairs >= 10
    assert [one.max_abs for one in found.outputs] == [0.0]
