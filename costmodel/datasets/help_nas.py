"""HELP: latency of networks from three search spaces on GPUs, Xeons, phones and accelerators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets.base import Dataset, Source

if TYPE_CHECKING:
    import pandas as pd

SPACES = ("nasbench201", "fbnet", "ofa")
GPUS = {
    "1080ti": "nvidia-gtx-1080-ti",
    "2080ti": "nvidia-rtx-2080-ti",
    "titan_rtx": "nvidia-titan-rtx",
    "titanx": "nvidia-titan-x-pascal",
    "titanxp": "nvidia-titan-xp",
    "titan_xp": "nvidia-titan-xp",
    "v100": "nvidia-v100-32gb-pcie",
}
CPUS = {
    "gold_6226": "cpu-intel-xeon-cascade-lake",
    "gold_6240": "cpu-intel-xeon-cascade-lake",
    "silver_4114": "cpu-intel-xeon-skylake",
    "silver_4210r": "cpu-intel-xeon-cascade-lake",
}
DEVICES = {**GPUS, **CPUS, "raspi4": "raspberry-pi-4"}
OTHERS = ("essential_ph", "eyeriss", "fpga", "pixel2", "pixel3", "samsung_a50", "samsung_s7")
COLUMN = r"^(?P<name>.+?)(?:_(?P<batch>1|32|64|256))?$"
GONE = 0.1  # of a column's median: the runtime removed the network, whose cell has no path to its output


def load(folder: Path) -> Dataset:
    """Rows of the three search spaces."""
    import pandas as pd

    rows = pd.concat([_long(pd.read_parquet(folder / f"{space}_latency.parquet"), space) for space in SPACES])
    devices = {**DEVICES, **{name: f"other-{name.replace('_', '-')}" for name in OTHERS}}
    torch = rows["name"].isin({*GPUS, *CPUS}).map({True: "torch", False: None})
    rows = rows.assign(
        source="help_nas",
        device=rows["name"].replace(devices),
        level="model",
        op="Model",
        inputs=[[] for _ in range(len(rows))],
        dtype=torch.map({"torch": "float32"}),
        attrs="",
        phase="forward",
        executor=torch,
        latency_s=rows["milliseconds"].astype(float) * 1e-3,
    )
    return Dataset(rows.drop(columns=["name", "milliseconds"]))


def _long(wide: pd.DataFrame, space: str) -> pd.DataFrame:
    """One row for each network and column, which names a device and a batch."""
    long = wide.reset_index(names="network").melt("network", var_name="column", value_name="milliseconds")
    parts = long["column"].str.extract(COLUMN)
    return long[["milliseconds"]].assign(
        name=parts["name"],
        batch=parts["batch"].fillna("1").astype(int),
        workload=f"{space}/" + long["network"].astype(str),
        noisy=long["milliseconds"] < GONE * long.groupby("column")["milliseconds"].transform("median"),
    )


SOURCE = Source(
    name="help_nas",
    folder="latency/help",
    load=load,
    upstream="https://github.com/HayeonLee/HELP, commit 45f70eb9",
    licence="MIT",
    notes=(
        "phones, Eyeriss and the FPGA have no sheet and get none: their devices are called `other-…`",
        "Xeons have the sheet of the largest of their generation: they have fewer cores",
        "Titan X is taken to be that of Pascal, V100 the PCIe board of 32 GB: the source does not say",
        "`nasbench201/N`, `fbnet/N` and `ofa/N` are the N-th networks of their lists; columns without a batch have one",
        "593 rows of Pixel 3 and Raspberry Pi 4 are noisy: cells without a path to the output, removed by the runtime",
    ),
)
