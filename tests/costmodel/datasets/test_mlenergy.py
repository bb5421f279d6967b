"""The ML.ENERGY adapter on files of its format made here, and on the source itself where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel.datasets.mlenergy import SOURCE

pd = pytest.importorskip("pandas")

DATA = os.environ.get("EOPT_DATA")
FIRST = {"model": "m", "throughput": 20.0, "response_length": 100.0, "latency": 5.0, "energy": 800.0, "gpu": "A40"}
SECOND = {"Model": "m", "gpu": "A100-SXM4-40GB", "kind": "llm/chat"}
CHAT = {"TP": 2.0, "PP": 1.0, "Energy/req (J)": 300.0, "Avg TPOT (s)": 0.05, "Token tput (tok/s)": 400.0}
SERVED = {"Avg Output Tokens": 150.0, "Avg BS (reqs)": 20.0}
DRAWN = {"Energy/image (J)": 90.0, "Batch latency (s)": 2.0, "Batch size": 4.0, "Denoising steps": 25.0}
THIRD = {"gpu_model": "B200", "model_id": "m", "num_gpus": 8, "task": "chat", "avg_power_watts": 900.0}
TOKENS = {"energy_per_token_joules": 0.5, "weight_precision": "mxfp4", "avg_output_len": 500.0,
          "avg_batch_size": 60.0, "output_throughput_tokens_per_sec": 3000.0}  # fmt: skip
VIDEO = {
    "energy_per_video_joules": 4000.0,
    "batch_latency_s": 30.0,
    "batch_size": 2.0,
    "inference_steps": 50.0,
    "num_frames": 49.0,
    "video_height": 480.0,
    "video_width": 720.0,
    "weight_precision": "bfloat16",
}
GAPS = {"energy_per_image_joules": None, "image_height": None, "image_width": None}


@pytest.fixture
def table(tmp_path: Path) -> Any:
    files = {
        "v1_legacy_flat": [FIRST | {"task": "chat"}],
        "v2_runs_flat": [SECOND | CHAT | SERVED, SECOND | DRAWN | {"Energy/video (J)": None, "Frames": None}],
        "v3_runs_flat": [THIRD | TOKENS, THIRD | VIDEO | GAPS],
    }
    for name, rows in files.items():
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv.gz", index=False)
    return SOURCE.load(tmp_path).rows


def test_versions_are_workloads_of_their_own(table):
    assert table["workload"].tolist() == ["v1:m", "v2:m", "v2:m", "v3:m", "v3:m"]
    assert set(table["device"]) == {"nvidia-a40", "nvidia-a100-40gb-sxm", "nvidia-b200-sxm"}


def test_tokens(table):
    tokens = table[table["attrs"].str.contains('"unit":"token"')]
    assert tokens["energy_j"].tolist() == pytest.approx([8, 2, 0.5])
    assert tokens["latency_s"].tolist() == pytest.approx([0.05, 0.05, 0.02])
    assert tokens["power_w"].tolist() == pytest.approx([160, 800, 900])
    assert tokens["batch"].tolist() == [1, 20, 60]
    assert [json.loads(text)["gpus"] for text in tokens["attrs"]] == [1, 2, 8]


def test_images_and_videos(table):
    image, video = (table[table["attrs"].str.contains(f'"unit":"{unit}"')].iloc[0] for unit in ("image", "video"))
    assert (image["power_w"], image["batch"], image["latency_s"]) == (180, 4, 2)
    assert json.loads(image["attrs"]) == {"unit": "image", "gpus": 1, "task": "llm/chat", "steps": 25}
    assert (video["energy_j"], video["power_w"]) == (4000, 900)
    assert json.loads(video["attrs"])["frames"] == 49


def test_formats_of_weights(table):
    last = table[table["device"] == "nvidia-b200-sxm"]
    assert last["dtype"].tolist() == ["bfloat16", "bfloat16"]
    assert last["weight_dtype"].iloc[0] == "float4_e2m1"
    assert last["weight_dtype"].isna().iloc[1]
    assert table["dtype"].isna().sum() == 3


@pytest.mark.skipif(not DATA, reason="EOPT_DATA names no folder of measurements")
def test_the_source_itself():
    rows = SOURCE.load(Path(str(DATA)) / SOURCE.folder).rows
    assert len(rows) == 260 + 244 + 970
    assert rows[["latency_s", "power_w", "energy_j"]].gt(0).all().all()
