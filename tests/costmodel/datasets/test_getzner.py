"""The adapter of Getzner's CPU energies on files of their format made here, and on the source where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.getzner import NETWORKS, SOURCE, SWEEPS

pd = pytest.importorskip("pandas")

DATA = os.environ.get("EOPT_DATA")
READ = {"duration": 30.0, "cpu_energy": 2e-6, "forward_passes": 300.0, "batch_size": 4}
IMAGE = {"image_size": 16, "kernel_size": 3, "in_channels": 5, "stride": 2, "padding": 1}
SHAPES = {
    "linear": {"input_size": 6, "output_size": 7},
    "conv2d": IMAGE | {"out_channels": 8},
    "maxpool2d": IMAGE,
}


def project(kind: str, layer: int, repeat: int) -> str:
    free = f"freeText:architecture=vgg11;layer_idx={layer}"
    return f"module:{kind},rep_no:{repeat},macs:9,batch_size:4,{free},forward_passes:10"


@pytest.fixture
def table(tmp_path: Path) -> Any:
    for name in SWEEPS:
        frame = pd.DataFrame([READ | SHAPES.get(name, {"input_size": 6})])
        frame.to_csv(tmp_path / f"{name}.csv.gz", index=False)
    readings = [
        {"project_name": project(kind, layer, repeat), "duration": 20.0, "cpu_energy": energy}
        for kind, layer, repeat, energy in (("VGG", 0, 1, 4e-4), ("VGG", 0, 2, 2e-4), ("VGG", 0, 3, 4.2e-4))
    ]
    layer = {"project_name": project("Conv2d", 3, 1), "duration": 20.0, "cpu_energy": 1e-4}
    for name in NETWORKS:
        pd.DataFrame([*readings, layer] if name.startswith("02") else [layer]).to_csv(tmp_path / name, index=False)
    return SOURCE.load(tmp_path).rows


def test_sweeps_give_the_energy_of_a_pass_and_the_time_of_all(table):
    row = table[table["op"] == "Gemm"].iloc[0]
    assert row["energy_j"] == pytest.approx(7.2)
    assert row["latency_s"] == pytest.approx(0.1)
    assert row["power_w"] == pytest.approx(72)


def test_shapes(table):
    shapes = dict(zip(table["op"], table["inputs"], strict=True))
    assert shapes["Gemm"] == [[4, 6], [6, 7], [7]]
    assert shapes["Conv"] == [[4, 5, 16, 16], [8, 5, 3, 3], [8]]
    assert shapes["MaxPool"] == [[4, 5, 16, 16]]
    assert shapes["Softmax"] == [[4, 6]]
    attrs = json.loads(table[table["op"] == "MaxPool"]["attrs"].iloc[0])
    assert attrs == {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}


def test_networks_are_medians_of_repeats_without_single_layers(table):
    (row,) = table[table["level"] == "model"].to_dict("records")
    assert (row["workload"], row["batch"], row["inputs"]) == ("vgg11", 4, [[4, 3, 224, 224]])
    assert row["energy_j"] == pytest.approx(4e-4 * 3.6e6 / 10)
    assert row["latency_s"] == pytest.approx(2)


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert rows["level"].value_counts().to_dict() == {"operator": 5414, "model": 177}
    # two sockets of 105 W; another reading of the units would be off by the number of passes
    assert rows["power_w"].between(60, 210).all()
