"""The page in a real browser, as written: it draws, sorts, filters and zooms under its own content security policy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from eopt.ir import onnx_io
from eopt.tools.compile import compile_model
from eopt.tools.report import data, html
from eopt.tools.report.tree import Json, operators

CNN = Path(__file__).parents[3] / "examples/cnn/model.onnx"
ENERGIES = "leaves(report[state.side].tree, '', []).map(op => op.energy_j).filter(joules => joules !== null)"
COLUMN = "[...document.querySelectorAll('#ops tbody tr')].map(row => row.cells[{}].textContent)"
HEADER = "[...document.querySelectorAll('#ops th button')].find(button => button.textContent === '{}').click()"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report() -> Json:
    result = compile_model(onnx_io.read(CNN), "simplify,fuse", target="nvidia-h100-sxm", batch=64)
    return data.compile_report(result.compiled, str(result.pipeline), result.situation, "cnn")


def opened(browser: Any, report: Json, folder: Path) -> Any:
    page = folder / "page.html"
    page.write_text(html.render(report), encoding="utf-8")
    browser.open(page)
    return browser


def test_a_header_sorts_and_the_filter_narrows(browser, report, tmp_path):
    page = opened(browser, report, tmp_path)
    by_energy = page.evaluate(COLUMN.format(2))
    page.evaluate(HEADER.format("operator"))
    by_operator = page.evaluate(COLUMN.format(2))
    assert by_operator == sorted(by_operator) != by_energy
    assert page.evaluate("document.querySelector('#ops th[aria-sort=ascending]').textContent") == "operator"
    page.evaluate("$('filter').value = 'gemm'; $('filter').dispatchEvent(new Event('input'))")
    assert set(page.evaluate(COLUMN.format(2))) == {"Gemm"}
    assert page.errors == []


def test_zoom_and_toggle_change_what_is_shown(browser, report, tmp_path):
    page = opened(browser, report, tmp_path)
    everything = len(page.evaluate(COLUMN.format(0)))
    page.evaluate("[...document.querySelectorAll('.cell')].find(cell => cell.textContent === 'stage1').click()")
    modules = page.evaluate(COLUMN.format(0))
    assert modules and len(modules) < everything
    assert all(module.startswith("stage1") for module in modules)
    escape = "new KeyboardEvent('keydown', {key: 'Escape', bubbles: true})"
    page.evaluate(f"document.activeElement.dispatchEvent({escape})")
    assert len(page.evaluate(COLUMN.format(0))) == everything
    page.evaluate("document.querySelector('#side button').click()")
    assert page.evaluate("document.querySelector('#side [aria-pressed=true]').textContent") == "before"
    assert page.evaluate(f"{ENERGIES}.length") == len(operators(report["before"]["tree"]))
    assert page.errors == []


def test_the_whole_says_what_its_operators_are_and_what_is_left(browser, report, tmp_path):
    page = opened(browser, report, tmp_path)
    cards = page.evaluate("[...document.querySelectorAll('#totals .card')].map(card => card.textContent)")
    sign = "\N{MINUS SIGN}" if report["after"]["residual"]["energy_j"] < 0 else "+"
    assert "operators" in cards[0] and f"residual {sign}" in cards[0]
    alone = copy.deepcopy(report)
    for side in ("before", "after"):
        alone[side]["residual"] = None
    page = opened(browser, alone, tmp_path)
    assert "residual" not in page.evaluate("document.querySelector('#totals').textContent")
    assert page.errors == []


def test_hostile_names_and_unknown_operators_are_drawn_as_text_and_hatched(browser, report, tmp_path):
    hostile = copy.deepcopy(report)
    first = hostile["after"]["tree"]["children"][0]
    while "children" in first:
        first["name"], first = "</script><img src=x onerror=alert(1)>", first["children"][0]
    first.update(energy_j=None, latency_s=None, share=None, basis="unknown", reasons=["<b>no</b> specification"])
    page = opened(browser, hostile, tmp_path)
    assert page.evaluate("document.querySelectorAll('img, #icicle b').length") == 0
    assert page.evaluate("document.querySelectorAll('.cell.unknown').length") == 1
    assert page.evaluate("document.querySelector('.cell').offsetHeight") > 0, "the policy lets the style in"
    assert page.errors == []


def test_a_page_without_prices_opens(browser, tmp_path):
    result = compile_model(onnx_io.read(CNN), "simplify")
    page = opened(browser, data.compile_report(result.compiled, "simplify", None, "cnn"), tmp_path)
    assert "not priced" in page.evaluate("document.body.innerText")
    assert page.errors == []
