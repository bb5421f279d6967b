"""Zeus: time and power of an epoch of training over batch sizes and power limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets import architectures, traced, zeus_models
from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

    from eopt.ir.model import Model

DEVICES = {
    "a40": "nvidia-a40",
    "p100": "nvidia-p100-16gb-pcie",
    "rtx6000": "nvidia-quadro-rtx-6000",
    "v100": "nvidia-v100-32gb-pcie",  # 250 W at most; batches that 24 GB do not hold
}
SAMPLES = {
    "cifar100/shufflenetv2": 50_000,
    "imagenet/resnet50": 1_281_167,
    "squad/bert_base_uncased": 88_524,  # windows of 384 tokens, a new one each 128
    "movielens-1m/ncf": 994_169 * 5,  # four negatives for each rating
}
"""Of an epoch, of the workloads that can be traced. The length of texts of sentiment140 is not said, and DeepSpeech 2
is recurrent over recordings of any length."""
PASSES = 10  # elementwise kernels an optimiser of that time launches for each parameter (torch.optim, 1.10)


def load(folder: Path) -> Dataset:
    """Rows of the four boards; one execution is an epoch."""
    import pandas as pd

    parts = [_rows(pd.read_csv(folder / f"summary_power_{name}.csv"), device) for name, device in DEVICES.items()]
    rows = pd.concat(parts, ignore_index=True)
    return Dataset(rows, _workloads(rows) if traced.available() else None)


def _workloads(rows: pd.DataFrame) -> pd.DataFrame | None:
    """An epoch of every workload, batch and optimiser that can be traced."""
    entries: list[dict[str, Any]] = []
    known = rows[rows["workload"].isin(SAMPLES)].drop_duplicates(["workload", "batch", "attrs"])
    for name, runs in known.groupby("workload"):
        model = _model(str(name))
        # until version 1.12 torch computed products in TF32 where there is such a unit
        forward = [replace(found, math="tf32" if found.math else None) for found in traced.listed(model)]
        step = traced.training(forward, traced.parameters(model), PASSES)
        for run in runs.to_dict("records"):
            steps = round(SAMPLES[str(name)] / run["batch"])
            epoch = [replace(operator, count=operator.count * steps) for operator in step]
            entries += traced.rows(traced.key(run), epoch, {traced.BATCH: run["batch"]})
    return traced.frame(entries)


def _model(name: str) -> Model:
    if name == "cifar100/shufflenetv2":
        return zeus_models.shufflenet()
    if name == "movielens-1m/ncf":
        return zeus_models.neumf()
    if name == "imagenet/resnet50":
        return traced.traced(architectures.RESNET_50)
    return traced.traced(architectures.BERT_BASE, seq=384)


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
        "operator lists: forward, backward and optimiser of an epoch, traced, but for sentiment140 and DeepSpeech 2",
        "ShuffleNet on V100 is there with two optimisers, which `optimizer` tells apart",
        "no row is failed or empty, none is left out",
    ),
)
