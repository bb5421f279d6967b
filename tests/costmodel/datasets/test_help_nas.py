"""The HELP adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eopt.backends import target
from eopt.costmodel.datasets.help_nas import DEVICES, SOURCE, SPACES

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

DATA = os.environ.get("EOPT_DATA")


def rows(folder: Path, **columns: list[float]) -> Any:
    for space in SPACES:
        pd.DataFrame(columns if space == "fbnet" else {"v100_64": [2.0]}).to_parquet(
            folder / f"{space}_latency.parquet"
        )
    table = SOURCE.load(folder).rows
    return table[table["workload"].str.startswith("fbnet/")]


def test_columns_name_a_device_and_a_batch(tmp_path):
    table = rows(tmp_path, titan_rtx_32=[5.0], gold_6226=[7.0], essential_ph_1=[9.0], pixel2=[9.0])
    assert table["device"].tolist() == [
        "nvidia-titan-rtx",
        "cpu-intel-xeon-cascade-lake",
        "other-essential-ph",
        "other-pixel2",
    ]
    assert table["batch"].tolist() == [32, 1, 1, 1]
    assert table["latency_s"].tolist() == pytest.approx([5e-3, 7e-3, 9e-3, 9e-3])
    assert table["executor"].fillna("").tolist() == ["torch", "torch", "", ""]


def test_networks_are_numbered_and_those_that_vanished_are_noisy(tmp_path):
    table = rows(tmp_path, raspi4=[20.0, 21.0, 0.01])
    assert table["workload"].tolist() == ["fbnet/0", "fbnet/1", "fbnet/2"]
    assert table["noisy"].tolist() == [False, False, True]


def test_devices_are_sheets_but_for_those_that_say_other():
    assert set(DEVICES.values()) <= set(target.names())


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    table = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(table) == 15_625 * 27 + 5_000 * 27 + 5_000 * 12
    assert table["noisy"].sum() == 593
