"""`eopt evaluate`, as users type it, on a table of made-up measurements."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
pytest.importorskip("scipy")

from eopt.costmodel import artifact
from eopt.costmodel.datasets.base import COLUMNS
from eopt.tools.cli import main

USAGE, BAD_INPUT = 2, 3
TESTS = runpy.run_path(str(Path(__file__).parents[1] / "costmodel/conftest.py"))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    TESTS["made_up"]().frame.reindex(columns=list(COLUMNS)).to_parquet(folder / "rows-test.parquet")
    return folder


@pytest.fixture
def evaluate(capsys, table, tmp_path):
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["evaluate", "--table", str(table), "--cache", str(tmp_path / "cache"), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "nowhere"), "no cost model 'nowhere'"),
        (("--model", "nowhere", "--ablation"), "not allowed with"),
        (("--fold", "vega"), "no measurements of 'vega'"),
        (("--device", "nvidia-l4"), "no measurements of 'nvidia-l4'"),
        (("--as-of", "1999"), "--as-of 1999"),
        (("--steps", "0"), "no positive integer"),
        (("--by", "vendor"), "invalid choice"),
    ],
)
def test_wrong_usage(evaluate, arguments, said):
    code, out, err = evaluate(*arguments)
    assert (code, out) == (USAGE, "")
    assert said in err


def test_without_a_table_it_says_how_to_make_one(capsys, tmp_path):
    assert main(["evaluate", "--table", str(tmp_path)]) == BAD_INPUT
    assert "eopt data build" in capsys.readouterr().err


def test_a_model_is_not_scored_on_what_it_was_trained_on(evaluate, tmp_path):
    artifact.save(TESTS["small_model"](), tmp_path / "mine")
    code, out, err = evaluate("--model", tmp_path / "mine", "--fold", "hopper")
    assert (code, out) == (USAGE, "")
    assert "was trained on nvidia-h100-sxm" in err and "eopt data train --exclude-device nvidia-h100-sxm" in err


@pytest.mark.slow
def test_another_predictor_on_the_same_rows_and_folds_from_the_cache(evaluate, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    artifact.save(TESTS["small_model"](), tmp_path / "mine")
    quick = ("--fold", "turing", "--steps", 20, "--rows", 60, "--model", tmp_path / "mine")
    code, out, err = evaluate(*quick, "--json", "--dump", tmp_path / "scores.parquet")
    assert (code, err) == (0, "")
    rows = {(row["quantity"], row["method"]): row for row in json.loads(out)}
    mine = rows["latency", str(tmp_path / "mine")]
    assert mine["rows"] == rows["latency", "eopt"]["rows"] == 60
    assert mine["device"] == "nvidia-t4" and mine["interval_score"] > 0
    dumped = pd.read_parquet(tmp_path / "scores.parquet")
    assert len(dumped) == len(rows)
    code, again, err = evaluate(*quick, "--json")
    assert code == 0 and json.loads(again) == json.loads(out)
    assert err.startswith("without turing: from")
    code, shown, _ = evaluate(*quick)
    assert code == 0 and "interval score" in shown and "nvidia-t4" in shown


@pytest.mark.slow
def test_the_ablation_is_one_table(evaluate):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    quick = ("--ablation", "--fold", "hopper", "--steps", 5, "--rows", 60)
    code, out, _ = evaluate(*quick, "--json")
    assert code == 0
    assert {row["variant"] for row in json.loads(out)} >= {"plain sheet features", "encoder + latent, 5"}
    code, out, err = evaluate(*quick)
    assert code == 0 and "better than plain sheet" in out
    assert err.count(": from") == len(json.loads(evaluate(*quick, "--json")[1])), "every variant was kept"
