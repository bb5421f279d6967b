"""EnergAIzer: energy and time of whole models at fixed clocks, with the operators they run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets.base import Dataset, Source, attrs_text
from eopt.ir.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {"a10": "nvidia-a10", "a100": "nvidia-a100-40gb-pcie", "dvfs": "nvidia-a100-40gb-pcie"}
"""File -> board. The sweep names no machine, but it throttles at 240 W and works at 56 W: below the idle power of the
SXM board (`netsres117`), so it is the PCIe board (`yz8`), whose limit is 250 W."""

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
NAME = re.compile(
    r"(?P<key>[\w-]+_p(?P<dtype>bf16|fp32)_b(?P<batch>\d+)[\w-]*?)(?:_attneager)?(?:_freq\d+)?(?:_iter\d+)?"
)
ANOMALOUS = {
    "a10": {"optmodel_opt-1p3b_pbf16_b8_s2048_modeprefill", "qwen2model_qwen2-1p5b_pbf16_b4_s4096_modeprefill"},
    "a100": {"qwen2model_qwen2-1p5b_pbf16_b8_s4096_modeprefill"},
    "dvfs": {"qwen2model_qwen2-1p5b_pbf16_b8_s4096_modeprefill"},
}
"""Runs that took less than their operators can; frozen."""

TWO = {"pointwise_add": "Add", "pointwise_mul": "Mul"}
WITH_SCALAR = {"scalar_add": "Add", "scalar_mul": "Mul"}
ONE = {"gelu": "Gelu", "relu": "Relu", "silu": "Swish", "tanh": "Tanh"}
ANY = "Neg"  # kernels the source could not name: as much work as one that reads and writes a tensor once


def load(folder: Path) -> Dataset:
    """Rows of the boards, and the operator lists."""
    import pandas as pd

    rows = pd.concat([_rows(folder, name, device) for name, device in DEVICES.items()], ignore_index=True)
    return Dataset(rows, _workloads(folder))


def _rows(folder: Path, name: str, device: str) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_csv(folder / "nvml" / f"{name}.csv")
    parts = [_parts(text.removesuffix(".csv")) for text in table["workload"]]
    table = table.assign(**pd.DataFrame(parts, table.index, list(NAME.groupindex)))
    table = table[~table["key"].isin(ANOMALOUS[name])]
    seconds = table["time"] * 1e-3
    return pd.DataFrame(
        {
            "source": "energaizer",
            "device": device,
            "level": "model",
            "op": "Model",
            "inputs": [[] for _ in range(len(table))],
            "dtype": table["dtype"].map(DTYPES),
            "attrs": "",  # attention is eager, whether the name says so or not: both take the same time
            "phase": "forward",
            "executor": "torch",
            "workload": table["key"],
            "batch": table["batch"].astype(int),
            "latency_s": seconds,
            "power_w": table["energy"] / seconds,
            "energy_j": table["energy"],
            "energy_scope": "board",
            "clock_hz": table["avg_freq"] * 1e6,
            "noisy": False,
        }
    )


def _parts(name: str) -> dict[str, str]:
    matched = NAME.fullmatch(name)
    if matched is None:
        raise InputError(f"energaizer: {name!r} names no workload as model_precision_batch")
    return matched.groupdict()


def _workloads(folder: Path) -> pd.DataFrame:
    """Equal operators of a list are one entry with a count, where the first of them stands."""
    import pandas as pd

    lists = {}
    for path in sorted((folder / "workloads").glob("*/*.json")):
        lists[_parts(path.stem)["key"]] = json.loads(path.read_text())
    entries = [
        {"workload": key, "position": position, **_operator(kind[0], fields, key.startswith("gpt2"))}
        for key, listed in lists.items()
        for position, (fields, kind) in enumerate(listed)
    ]
    table = pd.DataFrame(entries).assign(phase="forward")
    text = table["inputs"].map(str)
    keys = ["workload", "op", text, "dtype", "attrs"]
    table["count"] = table.groupby(keys, sort=False)["position"].transform("size")
    return table[~table.assign(text=text).duplicated(["workload", "op", "text", "dtype", "attrs"])]


def _operator(kind: str, fields: dict[str, Any], tokens_first: bool) -> dict[str, Any]:
    """Columns of a query, by the kind of a kernel.

    Args:
        tokens_first: rows of a product without batch are tokens; else they are the features that come out, as of
            `torch.nn.Linear`, and the weights are the first operand.
    """
    if kind in ("gemm", "conv2d"):
        dtype = {"dtype": DTYPES[fields["precM"]], "math": None}
        if dtype["dtype"] == "float32":
            dtype["math"] = "tf32" if fields["useTensorCore"] else "ieee"
        return {**dtype, **(_conv(fields) if kind == "conv2d" else _matmul(fields, tokens_first))}
    dtype = {"dtype": DTYPES[fields["prec"]], "math": None}
    if kind == "elementwise":
        return {**dtype, **_elementwise(fields["op"], fields["dim"])}
    size, row = fields["batch"], fields["dim"]
    if kind == "softmax":
        return {**dtype, "op": "Softmax", "inputs": [[size, row]], "attrs": ""}
    assert kind == "layernorm", f"energaizer: no operator is known for {kind!r}"
    return {**dtype, "op": "LayerNormalization", "inputs": [[size, row], [row], [row]], "attrs": ""}


def _matmul(fields: dict[str, Any], tokens_first: bool) -> dict[str, Any]:
    b, m, n, k = (fields[name] for name in ("batch", "dimM", "dimN", "dimK"))
    if b > 1:
        return {"op": "MatMul", "inputs": [[b, m, k], [b, k, n]], "attrs": ""}
    rows, columns = (m, n) if tokens_first else (n, m)
    return {"op": "MatMul", "inputs": [[rows, k], [k, columns]], "attrs": ""}


def _conv(fields: dict[str, Any]) -> dict[str, Any]:
    b, m, c, side, window = (fields[name] for name in ("b", "m", "c", "hw", "rs"))
    attrs = attrs_text(strides=[fields["stride"]] * 2, pads=[fields["padding"]] * 4)
    return {"op": "Conv", "inputs": [[b, c, side, side], [m, c, window, window]], "attrs": attrs}


def _elementwise(name: str, size: int) -> dict[str, Any]:
    if name in TWO:
        return {"op": TWO[name], "inputs": [[size], [size]], "attrs": ""}
    if name in WITH_SCALAR:
        return {"op": WITH_SCALAR[name], "inputs": [[size], []], "attrs": ""}
    if name.startswith("typecast_to_"):
        to = DTYPES[name.removeprefix("typecast_to_")]
        return {"op": "Cast", "inputs": [[size]], "attrs": attrs_text(to=to)}
    return {"op": ANY if name.startswith("unspecified") else ONE[name], "inputs": [[size]], "attrs": ""}


SOURCE = Source(
    name="energaizer",
    folder="energy/energaizer",
    load=load,
    upstream="https://github.com/yifueve/energaizer-ispass26-artifact, commit cd60749194f9b376db1a8cca158dddf13b2f137b",
    licence="MIT",
    notes=(
        "13 anomalous rows are left out (1 + 1 of A10, 1 of A100, 10 of the sweep): less than their operators can take",
        "the sweep is of the A100 PCIe 40 GB: it throttles at 240 W and works below the idle power of the SXM board",
        "the clock is the mean that was read: above 1.1 GHz the sweep throttles below the clock that was set",
        "torch with eager attention; 119 rows have no operator list: float32, and some lengths of bfloat16",
        "depthwise convolutions of MobileViT are listed as dense ones: their work is overstated",
        "tensor operations the source could not name are listed as Neg",
    ),
)
