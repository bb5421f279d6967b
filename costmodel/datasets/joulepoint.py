"""JoulePoint: energy of five models in float32 and under autocast, by NVML's energy counter, and of eight T4s."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.backends.target import load as sheet
from eopt.costmodel.datasets import architectures, traced
from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {
    "T4": "nvidia-t4",
    "A10": "nvidia-a10",
    "A100-SXM4-40GB": "nvidia-a100-40gb-sxm",
    "H200": "nvidia-h200-sxm",
}
DTYPES = {"fp32": "float32", "fp16": "float16", "fp16(autocast)": "float16"}
MODELS: dict[str, tuple[architectures.Document, dict[str, int]]] = {
    "resnet50": (architectures.RESNET_50, {}),
    "vit_b16": (architectures.VIT_B16, {}),
    "convnext_t": (architectures.CONVNEXT_T, {}),
    "transformer": (architectures.ENCODER, {"seq": 256}),
    "bert_large": (architectures.BERT_LARGE, {"seq": 384}),
}
"""Configuration of each workload, and the extents the source's program gives it."""
SETTING = r"^(?P<workload>\w+)_(?P<precision>fp32|fp16)_b(?P<batch>\d+)$"


def load(folder: Path) -> Dataset:
    """Rows of the grid, and of the replicates."""
    import pandas as pd

    parts = [_grid(folder), _replicates(folder)]
    rows = pd.concat(parts, ignore_index=True)
    common = {"source": "joulepoint", "level": "model", "op": "Model", "phase": "forward", "executor": "torch"}
    rows = rows.assign(**common, energy_scope="board", noisy=False, inputs=[[] for _ in range(len(rows))])
    return Dataset(rows, _workloads(parts[0]) if traced.available() else None)


def _workloads(grid: pd.DataFrame) -> pd.DataFrame | None:
    """The operators of every workload, format and batch."""
    runs = grid[grid["workload"].isin(MODELS)].drop_duplicates(["workload", "dtype", "batch"])
    entries: list[dict[str, Any]] = []
    for run in runs.to_dict("records"):
        document, extents = MODELS[run["workload"]]
        form = traced.Format(autocast=run["dtype"] == "float16")
        operators = traced.listed(traced.traced(document, **extents), form)
        entries += traced.rows(traced.key(run), operators, {traced.BATCH: run["batch"]})
    return traced.frame(entries)


def _grid(folder: Path) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_csv(folder / "c1_grid.csv")
    names = {gpu: sheet(DEVICES.get(gpu, gpu)).name for gpu in table["gpu"].unique()}
    device = table["gpu"].map(names)
    tdp = device.map({name: sheet(name).tdp_w for name in names.values()})
    return pd.DataFrame(
        {
            "device": device,
            "dtype": table["precision"].map(DTYPES),
            "attrs": "",
            "workload": table["workload"],
            "batch": table["batch"],
            "latency_s": table["runtime_s"] / table["iters"],
            "power_w": table["mean_power_w"],
            "energy_j": table["energy_j"] / table["iters"],
            "power_cap_w": table["power_cap_w"].where(table["power_cap_w"] != tdp).astype(float),
            "window_s": table["runtime_s"],
        }
    )


def _replicates(folder: Path) -> pd.DataFrame:
    """The same work on eight boards: how much boards of one kind differ."""
    import pandas as pd

    table = pd.read_csv(folder / "t4_replicates.csv").melt("unit", value_name="millijoules")
    table = table.join(table["variable"].str.extract(SETTING))
    batch = table["batch"].astype(int)
    return pd.DataFrame(
        {
            "device": "nvidia-t4",
            "dtype": table["precision"].map(DTYPES),
            "attrs": [attrs_text(unit=unit) for unit in table["unit"]],
            "workload": table["workload"],
            "batch": batch,
            "energy_j": table["millijoules"] * batch * 1e-3,
        }
    )


SOURCE = Source(
    name="joulepoint",
    folder="energy/joulepoint_c1",
    load=load,
    upstream="https://github.com/ApartsinProjects/JoulePoint, commit b24a3c34",
    licence="not stated for the results; data elsewhere in the repository CC-BY-4.0, code MIT",
    notes=(
        "inference: throughputs are several times those of training; one execution is one batch",
        "float16 is torch's autocast of a float32 model: operators that autocast keeps wide run in float32",
        "float32 is torch's default: matrix products in IEEE, convolutions in TF32 where the board has it",
        "`unit` c0 to c7 are eight T4s on the same work: they differ by 6.5 to 15.7 %, only energy is given",
        "operator lists are traced from configurations of the five models; extents are those of the measuring program",
        "transcribed from the output of the runs; windows of 4 s and more",
    ),
)
