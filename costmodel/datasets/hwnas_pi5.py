"""HW-NAS-Bench-360: latency and energy of the NAS-Bench-201 networks on a Raspberry Pi 5."""

from __future__ import annotations

from pathlib import Path

from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

EXECUTORS = {"litert": None, "onnx": "onnxruntime", "torchmobile": "torch"}


def load(folder: Path) -> Dataset:
    """Rows with energy, once for each network that was measured."""
    import pandas as pd

    table = pd.read_parquet(folder / "dataset.parquet")
    measured = table["energy_mj"].notna() & (table["status"] == "ok")
    # networks that compute the same carry the reading of the one that stands for them
    table = table[measured & (table["arch_idx"] == table["rep_arch_idx"])]
    attrs = {task: attrs_text(task=task) for task in table["task"].unique()}
    seconds, joules = table["lat_ms_median"] * 1e-3, table["energy_mj"] * 1e-3
    rows = pd.DataFrame(
        {
            "source": "hwnas_pi5",
            "device": "raspberry-pi-5",
            "level": "model",
            "op": "Model",
            "inputs": [[] for _ in range(len(table))],
            "dtype": "float32",
            "attrs": table["task"].map(attrs),
            "phase": "forward",
            "executor": table["framework"].astype(object).map(EXECUTORS),
            "library": table["framework"],
            "workload": "nasbench201/" + table["arch_idx"].astype(str),
            "batch": 1,
            "latency_s": seconds,
            "power_w": joules / seconds,
            "energy_j": joules,
            "energy_scope": "package",
            "noisy": False,
        }
    )
    return Dataset(rows)


SOURCE = Source(
    name="hwnas_pi5",
    folder="energy/hwnas360_pi5",
    load=load,
    upstream="https://github.com/roldebijvank/HW-NAS-Bench-360, commit a9b243e07fb8f0671ee56587696e7b8ef1ca702d",
    licence="none stated",
    notes=(
        "46,875 rows of a Pixel have no energy and are left out",
        "82,431 of 140,625 rows repeat the reading of an equal network: one of each is kept, 58,194",
        "energy over latency is 1.2 to 1.6 W, less than the idle board draws: not the wall's, taken to be the chip's",
        "`task` cifar100, ninapro or darcy decides the extents of the input; float32 and one sample are assumed",
        "`nasbench201/N` is the N-th network of the search space; the HELP source has the same networks",
    ),
)
