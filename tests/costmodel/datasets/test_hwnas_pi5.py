"""The HW-NAS-Bench-360 adapter on a file of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eopt.costmodel.datasets.hwnas_pi5 import SOURCE

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

DATA = os.environ.get("EOPT_DATA")
ROW = {"arch_idx": 7, "rep_arch_idx": 7, "framework": "onnx", "task": "darcy", "lat_ms_median": 4.0, "energy_mj": 6.0}


def test_one_row_for_each_reading_of_energy(tmp_path):
    changes = (
        {},
        {"arch_idx": 9},  # the same network under another number
        {"energy_mj": None},
        {"status": "failed"},
        {"framework": "litert"},
    )
    pd.DataFrame([ROW | {"status": "ok"} | change for change in changes]).to_parquet(tmp_path / "dataset.parquet")
    rows = SOURCE.load(tmp_path).rows
    assert rows["library"].tolist() == ["onnx", "litert"]
    assert rows["executor"].fillna("").tolist() == ["onnxruntime", ""]
    row = rows.iloc[0]
    assert (row["workload"], row["attrs"], row["device"]) == ("nasbench201/7", '{"task":"darcy"}', "raspberry-pi-5")
    assert row["latency_s"] == pytest.approx(4e-3)
    assert row["energy_j"] == pytest.approx(6e-3)
    assert row["power_w"] == pytest.approx(1.5)


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(rows) == 58_194
    assert rows["workload"].nunique() == 6_466
