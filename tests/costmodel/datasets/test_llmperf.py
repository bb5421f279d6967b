"""The LLM-Perf adapter on a file of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eopt.costmodel.datasets.llmperf import SOURCE

pd = pytest.importorskip("pandas")

DATA = os.environ.get("EOPT_DATA")
HEAD = "model,quant,batch,seq_len,max_new_tokens,A10_log10kWh,A100_log10kWh,T4_log10kWh,A10_J,A100_J,T4_J\n"


def test_a_row_for_each_board(tmp_path):
    text = f"{HEAD}me/net,gptq,1,256,64,-4,-4,-4,10,20,30\nme/net,unquantized,1,256,64,-4,-4,-4,4,5,6\n"
    (tmp_path / "llmperf_decode_energy_74x3.csv").write_text(text)
    rows = SOURCE.load(tmp_path).rows
    assert rows.groupby("device")["energy_j"].sum().to_dict() == {
        "nvidia-a10": 14,
        "nvidia-a100-80gb-sxm": 25,
        "nvidia-t4": 36,
    }
    gptq, plain = rows[rows["library"] == "gptq"], rows[rows["library"].isna()]
    assert set(gptq["weight_dtype"]) == {"int4"}
    assert plain["weight_dtype"].isna().all()
    assert set(rows["attrs"]) == {'{"past":256,"unit":"64 tokens"}'}


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(rows) == 74 * 3
    assert rows["energy_j"].gt(0).all()
