"""Energy of operators and networks on two Xeon Gold 5120, by Getzner and others with CodeCarbon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets.base import COLUMNS, Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

JOULES_PER_KWH = 3.6e6
NETWORKS = (
    "00_architectures-layerwise-raw.csv.gz",
    "01_architectures-layerwise-raw.csv.gz",
    "02_architectures-raw.csv.gz",
)
PROJECT = (
    r"module:(?:AlexNet|VGG),rep_no:\d+,macs:\d+,batch_size:(?P<batch_size>\d+),"
    r"freeText:architecture=(?P<network>\w+);layer_idx=0,forward_passes:(?P<forward_passes>\d+)"
)
Query = tuple[list[list[int]], str]


def _linear(row: Any) -> Query:
    return [[row.batch_size, row.input_size], [row.input_size, row.output_size], [row.output_size]], ""


def _conv(row: Any) -> Query:
    weight = [row.out_channels, row.in_channels, row.kernel_size, row.kernel_size]
    attrs = attrs_text(strides=[row.stride] * 2, pads=[row.padding] * 4)
    return [[row.batch_size, row.in_channels, row.image_size, row.image_size], weight, [row.out_channels]], attrs


def _pool(row: Any) -> Query:
    attrs = attrs_text(kernel_shape=[row.kernel_size] * 2, strides=[row.stride] * 2, pads=[row.padding] * 4)
    return [[row.batch_size, row.in_channels, row.image_size, row.image_size]], attrs


def _vector(row: Any) -> Query:
    return [[row.batch_size, row.input_size]], ""


SWEEPS: dict[str, tuple[str, Callable[[Any], Query]]] = {
    "linear": ("Gemm", _linear),
    "conv2d": ("Conv", _conv),
    "maxpool2d": ("MaxPool", _pool),
    "relu": ("Relu", _vector),
    "sigmoid": ("Sigmoid", _vector),
    "softmax": ("Softmax", _vector),
    "tanh": ("Tanh", _vector),
}


def load(folder: Path) -> Dataset:
    """Rows of the sweeps over operators, and of the networks."""
    import pandas as pd

    parts = [_sweep(folder, name, op, query) for name, (op, query) in SWEEPS.items()]
    rows = pd.concat([*parts, _networks(folder)], ignore_index=True).assign(
        source="getzner",
        device="cpu-intel-xeon-skylake",
        dtype="float32",
        phase="forward",
        executor="torch",
        energy_scope="package",
    )
    return Dataset(rows[[name for name in COLUMNS if name in rows]])


def _sweep(folder: Path, name: str, op: str, query: Callable[[Any], Query]) -> pd.DataFrame:
    """Means over repeats; `cpu_energy` is that of one pass, `duration` that of all."""
    import pandas as pd

    table = pd.read_csv(folder / f"{name}.csv.gz")
    queries = [query(row) for row in table.itertuples()]
    columns = {"inputs": [shapes for shapes, _ in queries], "attrs": [attrs for _, attrs in queries]}
    energy = table["cpu_energy"] * JOULES_PER_KWH
    return _measured(table, energy).assign(level="operator", op=op, workload=f"micro:{name}", **columns)


def _networks(folder: Path) -> pd.DataFrame:
    """Medians over repeats; here `cpu_energy` is that of all passes."""
    import pandas as pd

    table = pd.concat([pd.read_csv(folder / name) for name in NETWORKS], ignore_index=True)
    found = table["project_name"].str.extract(f"^{PROJECT}$")
    whole = found["network"].notna()
    numbers = found.loc[whole, ["batch_size", "forward_passes"]].astype(int)
    table = table.loc[whole, ["duration", "cpu_energy"]].assign(network=found["network"], **numbers)
    table = table.groupby(["network", "batch_size", "forward_passes"], as_index=False).median()
    energy = table["cpu_energy"] / table["forward_passes"] * JOULES_PER_KWH
    inputs = [[[batch, 3, 224, 224]] for batch in table["batch_size"].tolist()]
    return _measured(table, energy).assign(
        level="model", op="Model", workload=table["network"], batch=table["batch_size"], inputs=inputs, attrs=""
    )


def _measured(table: pd.DataFrame, energy: pd.Series) -> pd.DataFrame:
    import pandas as pd

    latency = table["duration"] / table["forward_passes"]
    power = energy / latency
    columns = {"latency_s": latency, "power_w": power, "energy_j": energy, "window_s": table["duration"]}
    return pd.DataFrame({**columns, "noisy": False})


SOURCE = Source(
    name="getzner",
    folder="energy/getzner_cpu",
    load=load,
    upstream="https://github.com/JohannesGetzner/dl-energy-estimator, commit 2279b0a5617facd9e34e1215c2605039c706d7cc",
    licence="none stated",
    notes=(
        "energy is that of both packages of 2 x Xeon Gold 5120: 28 cores, as many as the sheet has, at a lower clock",
        "joules of the GPU, which idled, and of the memory, which are a constant, are left out",
        "sweeps give the energy of one pass and the time of all, networks both of all: so both come to a power of 75 W",
        "products reach 44 GMAC/s and tensors move at 4 to 23 GB/s: few of the 28 cores work, most of the 75 W is idle",
        "5,655 readings of single layers of AlexNet and VGG are left out: their shapes are not given",
        "networks: 177 medians of 555 readings, repeats of a batch; single readings at half the power missed a socket",
    ),
)
