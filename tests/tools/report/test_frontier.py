"""The frontier of loss against joules: in the data, in a terminal, and as a plot in a real browser."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from rich.console import Console

from eopt.backends.data import Dataset
from eopt.ir import onnx_io
from eopt.passes.base import Trial
from eopt.passes.contract import Verdict
from eopt.tools.compile import compile_model
from eopt.tools.report import data, html, terminal
from eopt.tools.report.tree import Json

SPEC = "quant{sqnr=60.0}"
GRAPH = """<ir_version: 9, opset_import: ["": 20]> g (float[N,8] x) => (float[N,8] y) {
  a = MatMul(x, w0) b = Tanh(a) c = MatMul(b, w1) d = Tanh(c) y = MatMul(d, w2)
}"""
JOULES = {0.9: 2e-3, 0.5: 3e-3, 0.7: 2.5e-3, 0.0: 4e-3}  # by share
SQNR = {0.9: 41.2, 0.5: 63.4, 0.7: 60.5, 0.0: math.inf}
SENTENCE = "quant{sqnr=60.0}: nothing could be quantised within the contract"


@pytest.fixture(scope="module")
def result():
    """Products that quantise to about 40 dB, compiled under a contract that asks for 60."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(GRAPH)
    weights = {f"w{number}": rng.standard_normal((8, 8)).astype(np.float32) for number in range(3)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    samples = Dataset({"x": rng.standard_normal((16, 8)).astype(np.float32)})
    return compile_model(onnx_io.from_proto(proto), SPEC, data=samples)


def report_of(result, trials: tuple[Trial, ...]) -> Json:
    (step,) = result.compiled.steps
    steps = (replace(step, outcome=replace(step.outcome, trials=trials)),)
    return data.compile_report(replace(result.compiled, steps=steps), SPEC, None, "m.onnx")


def trials(priced: bool = True, chosen: float = 0.7, bound: float = 60.0) -> tuple[Trial, ...]:
    """In the order of a bisection, which is not that of the joules."""
    return tuple(
        Trial(JOULES[share] if priced else None, Verdict(db >= bound, db, bound, "dB", "y"), share, share == chosen)
        for share, db in SQNR.items()
    )


def printed(report: Json, **how: Any) -> str:
    stream = io.StringIO()
    terminal.print_compile(report, Console(file=stream, width=100, **how))
    return stream.getvalue()


def table(report: Json) -> list[list[str]]:
    """Heading and rows of the frontier: what stands between its title and the next blank line but one."""
    _, _, below = printed(report).partition("frontier of loss against")
    lines = [re.split(r"\s{2,}", line.strip()) for line in below.splitlines()[2:]]
    return [line for line in lines[: lines.index([""], 1)] if not line[0].startswith("─")]


def valid(report: Json) -> None:
    schema = json.loads(files("eopt.tools.report").joinpath("schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(report, allow_nan=False)))


def test_what_quant_tries_reaches_the_report(result):
    report = data.compile_report(result.compiled, SPEC, None, "m.onnx")
    (step,) = report["passes"]
    assert step["bound"] == {"required": 60.0, "unit": "dB"}
    first = step["trials"][0]
    assert (first["energy_j"], first["share"], first["holds"], first["chosen"]) == (None, 1.0, False, False)
    assert first["measured"] < 60
    assert len(step["trials"]) == len(result.compiled.steps[0].outcome.trials) > 1
    valid(report)


def test_trials_go_by_joules_or_by_share_and_an_infinite_figure_is_null(result):
    for priced in (True, False):
        report = report_of(result, trials(priced))
        (step,) = report["passes"]
        assert [trial["share"] for trial in step["trials"]] == [0.9, 0.7, 0.5, 0.0]
        assert [trial["energy_j"] for trial in step["trials"]] == ([2e-3, 2.5e-3, 3e-3, 4e-3] if priced else [None] * 4)
        assert [trial["measured"] for trial in step["trials"]] == [41.2, 60.5, 63.4, None]
        assert [trial["holds"] for trial in step["trials"]] == [False, True, True, True]
        assert [trial["share"] for trial in step["trials"] if trial["chosen"]] == [0.7]
        valid(report)


def test_the_schema_wants_a_trial_whole(result):
    report = report_of(result, trials())
    del report["passes"][0]["trials"][0]["holds"]
    with pytest.raises(jsonschema.ValidationError):
        valid(report)


def test_the_terminal_lists_them_and_marks_the_chosen_one(result):
    assert table(report_of(result, trials())) == [
        ["energy", "low precision", "dB", "contract"],
        ["2 mJ", "90.0 %", "41.2", "breaks"],
        ["2.5 mJ", "70.0 %", "60.5", "holds, chosen"],
        ["3 mJ", "50.0 %", "63.4", "holds"],
        ["4 mJ", "0.0 %", "no difference", "holds"],
    ]
    text = printed(report_of(result, trials()))
    assert "frontier of loss against joules: quant{sqnr=60.0}, 60 dB required" in text.splitlines()
    assert text.index("\npasses") < text.index("frontier of loss")
    assert "\x1b" not in text, "no colour codes in a pipe"
    assert "\x1b[31mbreaks" in printed(report_of(result, trials()), force_terminal=True, color_system="standard")


def test_without_joules_the_terminal_shows_shares(result):
    heading, first, *_ = table(report_of(result, trials(priced=False)))
    assert heading == ["low precision", "dB", "contract"]
    assert first == ["90.0 %", "41.2", "breaks"]
    assert "against operators in low precision" in printed(report_of(result, trials(priced=False)))


def test_outputs_that_are_not_finite_are_no_figure(result):
    for measured in (-math.inf, math.nan):
        broken = Trial(1e-3, Verdict(False, measured, 60.0, "dB", "y"), 1.0)
        assert table(report_of(result, (broken,)))[1] == ["1 mJ", "100.0 %", "not finite", "breaks"]


@pytest.mark.parametrize(("bound", "said"), [(60.0, False), (70.0, True), (math.inf, True)])
def test_where_only_floats_hold_a_sentence_says_so(result, bound, said):
    report = report_of(result, trials(bound=bound, chosen=0.0))
    assert (SENTENCE in report["warnings"]) is said
    assert (f"! {SENTENCE}" in printed(report).splitlines()) is said
    assert (SENTENCE in html.render(report)) is said
    valid(report)


def test_a_report_without_trials_is_as_it_was(result):
    """The frontier is a block of its own: without it, nothing else has changed."""
    bare, full = (printed(report_of(result, tried)).splitlines() for tried in ((), trials()))
    start = next(number for number, line in enumerate(full) if line.startswith("frontier")) - 1
    assert full[:start] + full[start + len(full) - len(bare) :] == bare
    assert not any("frontier" in line or "contract:" in line for line in bare)
    report = report_of(result, ())
    assert (report["passes"][0]["trials"], report["passes"][0]["bound"]) == ([], None)
    assert not any("quantised" in warning for warning in report["warnings"])
    assert '<section id="s-frontier" aria-labelledby="h-frontier" hidden>' in html.render(report)
    valid(report)


def shown(browser, report: Json, folder):
    page = folder / "page.html"
    page.write_text(html.render(report), encoding="utf-8")
    browser.open(page)
    return browser.evaluate


POINTS = "[...document.querySelectorAll('.plot .point')].map(point => [point.getAttribute('class'), {}])"


@pytest.mark.slow
def test_the_plot_goes_right_with_joules_and_up_with_the_figure(browser, result, tmp_path):
    ask = shown(browser, report_of(result, trials()), tmp_path)
    points = ask(POINTS.format("+point.getAttribute('cx'), +point.getAttribute('cy')"))
    assert [kind for kind, *_ in points] == ["point breaks", "point", "point"], "all in float is told, not drawn"
    (_, *first), (_, *second), (_, *third) = points
    # 2, 2.5 and 3 mJ are equally far from each other; the screen's y grows downwards
    assert second[0] - first[0] == pytest.approx(third[0] - second[0])
    assert first[0] < second[0] and first[1] > second[1] > third[1]
    bound = ask("+document.querySelector('.plot .bound').getAttribute('y1')")
    assert second[1] < bound < first[1], "the bound parts what holds from what breaks"
    assert ask("+document.querySelector('.plot .ring').getAttribute('cx')") == second[0]
    assert ask("document.querySelectorAll('.plot .ring').length") == 1
    filled = "getComputedStyle(document.querySelector('.plot .{}')).fill"
    assert ask(filled.format("breaks")) != ask(filled.format("point:not(.breaks)")), "the policy lets the style in"
    assert browser.errors == []


@pytest.mark.slow
def test_the_plot_speaks(browser, result, tmp_path):
    ask = shown(browser, report_of(result, trials()), tmp_path)
    chosen = (
        "2.5\N{NO-BREAK SPACE}mJ, 70.0\N{NO-BREAK SPACE}% of the operators in low precision, 60.5 dB, holds, chosen"
    )
    assert ask(POINTS.format("point.querySelector('title').textContent"))[1][1] == chosen
    assert ask("document.querySelector('.plot').getAttribute('role')") == "img"
    label = ask("document.querySelector('.plot').getAttribute('aria-label')")
    assert label.startswith("quant{sqnr=60.0}; 60 dB required; ")
    assert chosen in label and label.count(";") == 5
    axes = ask("['x', 'y'].map(axis => document.querySelector('.plot .' + axis).textContent)")
    assert axes == ["predicted energy of an execution, J", "measured, dB"]
    assert "no difference, holds" in ask("document.querySelector('#frontier').innerText")
    ticks = ask("[...document.querySelectorAll('.plot text[text-anchor=middle]')].map(text => text.textContent)")
    assert len(set(ticks)) == len(ticks), "ticks can be told apart"


@pytest.mark.slow
def test_without_joules_the_plot_goes_by_share_and_units_stay_text(browser, result, tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    hostile = tuple(replace(trial, verdict=replace(trial.verdict, unit=evil)) for trial in trials(priced=False))
    ask = shown(browser, report_of(result, hostile), tmp_path)
    assert ask("document.querySelector('.plot .x').textContent") == "operators in low precision, %"
    assert ask("document.querySelector('.plot .y').textContent") == f"measured, {evil}"
    assert ask("document.querySelectorAll('img').length") == 0
    by_share = [place for _, place in ask(POINTS.format("+point.getAttribute('cx')"))]
    assert by_share == sorted(by_share, reverse=True)
    assert browser.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("tried", [(), trials()[-1:], trials()[:1], trials(bound=math.inf)])
def test_few_points_or_none_draw_what_there_is(browser, result, tmp_path, tried):
    ask = shown(browser, report_of(result, tried), tmp_path)
    assert ask("$('s-frontier').hidden") is (not tried)
    assert ask("document.querySelectorAll('.plot .point').length") == sum(trial.share > 0 for trial in tried)
    assert "NaN" not in ask("$('frontier').innerHTML")
    assert browser.errors == []
