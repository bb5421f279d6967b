"""PipeWeave: scaled float8 matrix products of vLLM, and collectives of NCCL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eopt.backends.target import load as sheet
from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {
    "A100": "nvidia-a100-80gb-sxm",
    "H20": "nvidia-h20",
    "NVIDIA H20": "nvidia-h20",
    "NVIDIA H200": "nvidia-h200-sxm",
}
COLLECTIVES = {"all_reduce": "AllReduce", "send_recv": "SendRecv"}


def load(folder: Path) -> Dataset:
    """Products and collectives, the median of equal ones.

    Raises:
        UsageError: a device without a sheet.
    """
    import pandas as pd

    products = pd.read_parquet(folder / "gemm_fp8.parquet", columns=["M", "N", "K", "avg_duration", "hardware"])
    table = pd.concat([_products(products), _collectives(folder)], ignore_index=True)
    devices = {name: sheet(DEVICES.get(name, name)).name for name in table["device"].unique()}
    common = {"source": "pipeweave", "level": "operator", "phase": "forward", "noisy": False}
    return Dataset(table.assign(device=table["device"].map(devices), **common))


def _products(frame: pd.DataFrame) -> pd.DataFrame:
    # the columns that are left out count tiles and cycles: derived, or a leak of the kernel
    table = frame.groupby(["hardware", "M", "N", "K"], sort=False)["avg_duration"].median().reset_index()
    shapes = zip(table["M"].tolist(), table["N"].tolist(), table["K"].tolist(), strict=True)
    return table.assign(
        device=table["hardware"],
        op="MatMul",
        inputs=[[[m, k], [k, n]] for m, n, k in shapes],
        dtype="float8_e4m3",
        scale="tensor",
        attrs="",
        executor=None,  # the kernel alone, by its own duration
        library="cutlass",
        workload="micro:gemm_fp8",
        latency_s=table["avg_duration"] * 1e-6,
    ).drop(columns=["hardware", "M", "N", "K", "avg_duration"])


def _collectives(folder: Path) -> pd.DataFrame:
    """A collective has no extents but bytes: `inputs` is [[bytes]]; `ranks` devices take part, all in one node."""
    import pandas as pd

    frame = pd.read_parquet(folder / "collectives.parquet")
    values = {name: frame[f"time_stats.{name}.median"] for name in COLLECTIVES}
    frame["latency_ms"] = values["all_reduce"].where(frame["collective"] == "all_reduce", values["send_recv"])
    keys = ["device", "collective", "num_workers", "size"]
    table = frame.groupby(keys, sort=False)["latency_ms"].median().reset_index()
    attrs = {ranks: attrs_text(ranks=int(ranks)) for ranks in table["num_workers"].unique()}
    return table.assign(
        op=table["collective"].map(COLLECTIVES),
        inputs=[[[size]] for size in table["size"].tolist()],
        attrs=table["num_workers"].map(attrs),
        executor="torch",
        library="nccl",
        workload="micro:" + table["collective"],
        latency_s=table["latency_ms"] * 1e-3,
    ).drop(columns=["collective", "num_workers", "size", "latency_ms"])


SOURCE = Source(
    name="pipeweave",
    folder="latency/pipeweave",
    load=load,
    upstream="https://github.com/zksainx/pipeweave, commit 55e03178",
    licence="Apache-2.0",
    notes=(
        "Products: M, N, K and the mean duration; the other columns are derived from tiles and cycles, or leak "
        "them. The scale is taken to be per tensor.",
        "Collectives have [[bytes]] for inputs and no dtype; ranks share a node. 7 repeats pooled by their median.",
        "The end-to-end tables are predictions by other models and are not used.",
    ),
)
