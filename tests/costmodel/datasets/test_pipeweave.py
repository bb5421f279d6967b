"""The PipeWeave adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.pipeweave import SOURCE
from eopt.ir.errors import UsageError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

DATA = os.environ.get("EOPT_DATA")


def write(folder: Path, hardware: str = "NVIDIA H20") -> None:
    product = {"M": 4, "N": 16, "K": 8, "hardware": hardware, "num_sms": 78, "split": "test"}
    pd.DataFrame([product | {"avg_duration": time} for time in (10.0, 30.0)]).to_parquet(folder / "gemm_fp8.parquet")
    reduce: dict[str, Any] = {
        "time_stats.all_reduce.median": 2.0,
        "time_stats.send_recv.median": None,
        "collective": "all_reduce",
        "device": "A100",
        "num_workers": 8,
        "size": 4096,
    }
    send = reduce | {
        "time_stats.all_reduce.median": None,
        "time_stats.send_recv.median": 4.0,
        "collective": "send_recv",
        "device": "H20",
        "num_workers": 2,
    }
    pd.DataFrame([reduce, send]).to_parquet(folder / "collectives.parquet")


def test_products_and_collectives(tmp_path):
    write(tmp_path)
    rows = SOURCE.load(tmp_path).rows.set_index("op")
    assert rows["inputs"].to_dict() == {"MatMul": [[4, 8], [8, 16]], "AllReduce": [[4096]], "SendRecv": [[4096]]}
    assert rows["latency_s"].to_dict() == pytest.approx({"MatMul": 2e-5, "AllReduce": 2e-3, "SendRecv": 4e-3})
    assert rows["attrs"].to_dict() == {"MatMul": "", "AllReduce": '{"ranks":8}', "SendRecv": '{"ranks":2}'}
    assert rows["device"].tolist() == ["nvidia-h20", "nvidia-a100-80gb-sxm", "nvidia-h20"]
    assert rows["dtype"].isna().tolist() == [False, True, True]
    assert not {"num_sms", "split"} & set(rows)


def test_a_device_without_a_sheet_is_refused(tmp_path):
    write(tmp_path, "Abacus")
    with pytest.raises(UsageError, match="Abacus"):
        SOURCE.load(tmp_path)


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert rows["op"].value_counts().to_dict() == {"AllReduce": 16_185, "MatMul": 12_614, "SendRecv": 4_230}
    assert rows["latency_s"].gt(0).all()
