"""The Zeus adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eopt.costmodel.datasets.zeus import DEVICES, SOURCE

pd = pytest.importorskip("pandas")

DATA = os.environ.get("EOPT_DATA")
HEAD = "dataset,network,batch_size,optimizer,power_limit,time_per_epoch,average_power\n"


def test_an_epoch_under_a_limit_and_none_that_failed(tmp_path):
    for name in DEVICES:
        (tmp_path / f"summary_power_{name}.csv").write_text(HEAD)
    good, failed = "cifar100,net,64,adam,150,20.0,120.0\n", "cifar100,net,64,adam,150,0.0,\n"
    (tmp_path / "summary_power_a40.csv").write_text(HEAD + good + failed)
    (row,) = SOURCE.load(tmp_path).rows.to_dict("records")
    assert (row["device"], row["workload"], row["batch"]) == ("nvidia-a40", "cifar100/net", 64)
    assert (row["phase"], row["energy_j"], row["power_cap_w"]) == ("training", 2400, 150)
    assert row["attrs"] == '{"optimizer":"adam","unit":"epoch"}'


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(rows) == 1609
    over = rows[rows["power_w"] > 1.1 * rows["power_cap_w"]]
    assert set(over["device"]) == {"nvidia-a40"}
    assert len(over) == 10
