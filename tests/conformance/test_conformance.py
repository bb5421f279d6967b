"""Lossless: every model comes out equal and runs bit-equal; docs/conformance.md says so in numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2] / "docs"))

import features
import generate_conformance as table
import suite
from check import Outcome, examine

SAMPLE = 16


def assert_lossless(outcome: Outcome) -> None:
    assert outcome.message, f"{outcome.name}: the message differs"
    assert outcome.file, f"{outcome.name}: the file differs"
    assert outcome.same, f"{outcome.name}: what was written back runs differently"
    assert outcome.rebuilt, f"{outcome.name}: operators made from the tree run differently"


def test_every_sixteenth_model_of_the_suite(tmp_path):
    for case in (*suite.operators(), *suite.files())[::SAMPLE]:
        assert_lossless(examine(case, tmp_path))


@pytest.mark.parametrize("case", features.cases(), ids=lambda case: case.name)
def test_every_corner_of_the_format(case, tmp_path):
    assert_lossless(examine(case, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_holds():
    cases = (*suite.operators(), *suite.files(), *suite.exported(), *features.cases())
    found = table.outcomes(cases)
    for outcome in found:
        assert_lossless(outcome)
    page = table.TABLE.read_text()
    if f"onnx {onnx.__version__} and onnxruntime {onnxruntime.__version__}" not in page:
        pytest.skip("docs/conformance.md was written with other versions")
    assert page == table.render(found), "run python docs/generate_conformance.py"
