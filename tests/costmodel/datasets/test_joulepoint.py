"""The JoulePoint adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.joulepoint import SOURCE
from eopt.ir.errors import UsageError

pd = pytest.importorskip("pandas")

DATA = os.environ.get("EOPT_DATA")
GRID = (
    "gpu,power_cap_w,workload,precision,batch,iters,runtime_s,energy_j,energy_per_sample_mj,throughput_sps,mean_power_w"
)


def rows(folder: Path, *lines: str) -> Any:
    (folder / "c1_grid.csv").write_text("\n".join([GRID, *lines]))
    (folder / "t4_replicates.csv").write_text("unit,my_net_fp16_b32\nc0,50\nc1,60\n")
    return SOURCE.load(folder).rows


def test_figures_are_those_of_one_batch(tmp_path):
    row = rows(tmp_path, "T4,70,vit,fp16(autocast),8,20,4.0,280,1750,40,70").iloc[0]
    assert (row["device"], row["dtype"], row["workload"], row["batch"]) == ("nvidia-t4", "float16", "vit", 8)
    assert row["latency_s"] == pytest.approx(0.2)
    assert row["energy_j"] == pytest.approx(14)
    assert row["window_s"] == pytest.approx(4)


def test_a_limit_is_null_where_it_is_the_tdp(tmp_path):
    table = rows(tmp_path, "H200,700,vit,fp32,8,20,4,280,1,1,70", "H200,500,vit,fp32,8,20,4,280,1,1,70")
    caps = table[table["device"] == "nvidia-h200-sxm"]["power_cap_w"]
    assert caps.isna().tolist() == [True, False]
    assert caps.iloc[1] == 500


def test_replicates_are_joules_of_a_batch_on_boards_that_are_told_apart(tmp_path):
    table = rows(tmp_path, "A10,150,vit,fp32,8,20,4,280,1,1,70")
    replicates = table[table["attrs"] != ""]
    assert replicates["attrs"].tolist() == ['{"unit":"c0"}', '{"unit":"c1"}']
    assert replicates["energy_j"].tolist() == pytest.approx([1.6, 1.92])
    assert set(replicates["workload"]) == {"my_net"}
    assert replicates["latency_s"].isna().all()


def test_a_device_without_a_sheet_is_refused(tmp_path):
    with pytest.raises(UsageError, match="abacus"):
        rows(tmp_path, "abacus,70,vit,fp32,8,20,4,280,1,1,70")


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    table = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(table) == 120 + 40
    grid = table[table["latency_s"].notna()]
    # the counter's joules and the mean power are two readings of one run
    assert (grid["energy_j"] / (grid["power_w"] * grid["latency_s"])).between(0.98, 1.02).all()
