"""Zeus: time and power of an epoch of training over batch sizes and power limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {
    "a40": "nvidia-a40",
    "p100": "nvidia-p100-16gb-pcie",
    "rtx6000": "nvidia-quadro-rtx-6000",
    "v100": "nvidia-v100-32gb-pcie",  # 250 W at most; batches that 24 GB do not hold
}


def load(folder: Path) -> Dataset:
    """Rows of the four boards; one execution is an epoch."""
    import pandas as pd

    parts = [_rows(pd.read_csv(folder / f"summary_power_{name}.csv"), device) for name, device in DEVICES.items()]
    return Dataset(pd.concat(parts, ignore_index=True))


def _rows(table: pd.DataFrame, device: str) -> pd.DataFrame:
    import pandas as pd

    table = table[(table["time_per_epoch"] > 0) & (table["average_power"] > 0)]
    return pd.DataFrame(
        {
            "source": "zeus",
            "device": device,
            "level": "model",
            "op": "Model",
            "inputs": [[] for _ in range(len(table))],
            "attrs": [attrs_text(optimizer=name, unit="epoch") for name in table["optimizer"]],
            "phase": "training",
            "executor": "torch",
            "workload": table["dataset"] + "/" + table["network"],
            "batch": table["batch_size"],
            "latency_s": table["time_per_epoch"],
            "power_w": table["average_power"],
            "energy_j": table["average_power"] * table["time_per_epoch"],
            "energy_scope": "board",
            "power_cap_w": table["power_limit"].astype(float),
            "noisy": False,
        }
    )


SOURCE = Source(
    name="zeus",
    folder="energy/zeus",
    load=load,
    upstream="https://github.com/ml-energy/zeus, commit 75a8b9398034eb9baf74ca0a830c2c31bcce52cd",
    licence="Apache-2.0",
    notes=(
        "one execution is an epoch of training on one board: time, mean power and their product",
        "the number format is not said: the column is null",
        "V100 is taken to be the PCIe board of 32 GB: limits end at 250 W, and batches are larger than on 24 GB",
        "below their lowest sensible limit boards miss it: 10 rows of A40 at 100 W draw 110 to 121 W",
        "ShuffleNet on V100 is there with two optimisers, which `optimizer` tells apart",
        "no row is failed or empty, none is left out",
    ),
)
