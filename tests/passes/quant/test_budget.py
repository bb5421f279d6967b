"""The contract while precision is chosen: what holds is not searched, and only what breaks it goes back to float."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir.errors import InputError
from eopt.passes.base import Context
from eopt.passes.pipeline import Pipeline, Verification
from eopt.passes.quant import budget, sensitivity

LAYERS = """(float[N,8] x) => (float[N,8] y) {
  ["first"] a = MatMul(x, w0) b = Tanh(a) c = Mul(b, spread) ["bad"] d = MatMul(c, w1) e = Tanh(d)
  ["last"] y = MatMul(e, w2)
}"""


class Counting:
    """A runner that counts the models it is asked to run, and refuses some."""

    def __init__(self, refuses=lambda model: False) -> None:
        self.runs, self.refuses = 0, refuses

    def run(self, model, batches, taps=()):
        self.runs += 1
        if self.refuses(model):
            raise InputError("no kernel")
        yield from OrtRunner(threads=1).run(model, batches, taps)


@pytest.fixture
def model(build, normal):
    """One layer reads a channel 1000 times as large as the others, whose weights make up for it."""
    spread, weight = np.ones(8, np.float32), normal(8, 8)
    spread[0], weight[0] = 1000, weight[0] / 1000
    return build(LAYERS, w0=normal(8, 8), w1=weight, w2=normal(8, 8), spread=spread)


@pytest.fixture
def searched(monkeypatch) -> list[int]:
    """One entry for each time the noise of single operators was measured."""
    calls: list[int] = []
    measured = sensitivity.measured
    monkeypatch.setattr(sensitivity, "measured", lambda *given: calls.append(1) or measured(*given))
    return calls


def compiled(model, data, text, runner=None):
    samples = data or Dataset({"x": np.random.default_rng(5).standard_normal((16, 8)).astype(np.float32)})
    batches = list(samples.batches(model.feeds, 16))
    return Pipeline.parse(text).run(model, Context(runner or OrtRunner(threads=1), data), Verification(batches))


def test_what_holds_at_once_is_not_searched(model, samples, searched):
    runner = Counting()
    (step,) = compiled(model, samples(model), "quant{exclude=[bad]}", runner).steps
    assert len(step.outcome.applied) == 2 and not step.outcome.trials and not searched
    assert runner.runs == 4  # calibration, the original, what was made, and that once more as what the pass returned


def test_only_the_layer_that_breaks_the_contract_goes_back(model, samples, searched):
    (step,) = compiled(model, samples(model), "quant{sqnr=25}").steps
    assert searched and step.kept and step.verdict.holds
    assert [change.where for change in step.outcome.refused] == ["bad"]
    assert "accuracy" in step.outcome.refused[0].reason
    assert {change.where for change in step.outcome.applied} == {"first", "last"}
    assert {"w0_q", "w1", "w2_q"} <= set(step.outcome.model.weights)


def test_trials_tell_what_was_tried_and_which_was_taken(model, samples):
    (step,) = compiled(model, samples(model), "quant{sqnr=25}").steps
    trials = step.outcome.trials
    assert [trial.chosen for trial in trials].count(True) == 1
    (taken,) = (trial for trial in trials if trial.chosen)
    assert taken.holds and taken.share == pytest.approx(2 / 3)
    assert taken.verdict.measured == pytest.approx(step.verdict.measured)
    assert (trials[0].share, trials[0].holds) == (1.0, False)
    assert len(trials) <= 1 + budget.TRIALS


def test_a_contract_that_nothing_holds_leaves_the_model_and_what_was_tried(model, samples):
    result = compiled(model, samples(model), "quant{sqnr=150}")
    (step,) = result.steps
    assert result.model is model and step.kept and not step.outcome.applied
    assert step.outcome.trials and not any(trial.holds and trial.share for trial in step.outcome.trials)
    assert len(step.outcome.refused) == 3


@pytest.mark.parametrize("text", ["quant{format=dynamic,sqnr=150}", "quant{format=weight-only,group=0,sqnr=150}"])
def test_without_samples_there_is_no_search_and_the_pass_is_rolled_back(model, searched, text):
    result = compiled(model, None, text)
    (step,) = result.steps
    assert not searched and not step.kept and result.model is model
    assert step.verdict.required == 150 and step.verdict.measured < 150


def test_what_does_not_run_goes_back_to_float(model, samples):
    """An engine that has no kernel for one of the operators: it stays, the others are quantised."""
    runner = Counting(refuses=lambda m: "w2_q" in m.weights and not any(" error" in v.id for v in m.feeds))
    (step,) = compiled(model, samples(model), "quant{exclude=[bad]}", runner).steps
    assert step.kept
    assert step.outcome.trials[0].verdict.measured == -math.inf and not step.outcome.trials[0].holds
