"""The benchmarks of quantisation: turns and ratios, and that each runs from the command line to its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.quant import plot, timing

ROOT = Path(__file__).parents[2]


def test_every_model_has_its_turn_in_every_place() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = timing.interleaved(runs, rounds=2, seconds=0.0)
    order = [name for place, name in enumerate(calls) if place == 0 or calls[place - 1] != name]
    assert "".join(order) == "abcbcacab"  # three rounds, the first to warm up
    assert {name: len(series) for name, series in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_ratio_is_taken_within_rounds() -> None:
    # The machine is ten times slower in the second round, which no ratio sees.
    assert timing.ratio([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 0.5


def test_a_plot_shows_what_has_an_error(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plot.scatter([(1.0, float("inf"), "original", False), (0.5, 30.0, "a<b", True), (0.7, -1.0, "c", False)], path)
    drawn = ET.parse(path).getroot()
    texts = [element.text for element in drawn if element.tag.endswith("text")]
    assert "a<b" in texts
    assert "original" not in texts
    ys = [float(element.get("cy", "nan")) for element in drawn if element.tag.endswith("circle")]
    assert ys[0] < ys[1]  # the more exact is higher up


def _written(script: str, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    out = folder / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks/quant" / script), "cnn", *arguments, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    found: list[dict[str, Any]] = json.loads(out.read_text())
    return found


@pytest.mark.slow
def test_frontier_has_accuracy_and_time_of_ours_and_of_peers(tmp_path: Path) -> None:
    options = ("--ours", "int8:simplify,fuse,quant", "int8:quant{no=1}", "--peers", "ort float16", "--rounds", "1")
    rows = {row["variant"]: row for row in _written("frontier.py", tmp_path, *options, "--seconds", "0")}
    assert rows["original"]["time"] == 1.0
    assert rows["original"]["sqnr_db"] is None
    assert rows["eopt simplify,fuse,quant"]["sqnr_db"] > 20  # 33.8 where this was written
    assert rows["ort float16"]["sqnr_db"] > rows["eopt simplify,fuse,quant"]["sqnr_db"]
    assert rows["ort float16"]["time"] > 0
    assert "no option 'no'" in rows["eopt quant{no=1}"]["error"]
    assert rows["eopt quant{no=1}"]["time"] is None


@pytest.mark.slow
def test_regions_are_the_clusters_or_every_product(tmp_path: Path) -> None:
    quick = ("--rounds", "1", "--seconds", "0")
    clusters, products = _written("regions.py", tmp_path, *quick), _written("regions.py", tmp_path, *quick, "--alone")
    assert [row["ops"].get("Conv", 0) for row in clusters] == [27, 0]
    assert all(row["ops"].get("Conv", 0) + row["ops"].get("Gemm", 0) == 1 for row in products)
    assert len({json.dumps(row["shapes"]) + str(row["ops"]) for row in products}) == len(products)
    assert all(row["accepted"] == (row["reason"] == "") for row in (*clusters, *products))
