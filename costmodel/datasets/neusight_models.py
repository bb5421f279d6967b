"""NeuSight: models measured whole, and their operators measured one by one."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.backends.target import load
from eopt.costmodel.datasets.neusight_graph import Operator, counts, nodes, operators
from eopt.costmodel.datasets.neusight_ops import DEVICES

if TYPE_CHECKING:
    import pandas as pd

DISTRIBUTED = re.compile(r"-(?:tp|pp|dp)\d")
PRODUCTS = ("Gemm", "MatMul")
COPIES = ("Add", "Dropout")
AGREE = (0.75, 1.33)
"""Sum of the operators of a forward pass over the pass as a whole: beyond, one of the two is wrong."""
_DEVICE = {name.replace(" ", "_"): sheet for name, sheet in DEVICES.items()}


def rows(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of models and of their operators; and the operators each model runs, in order.

    Raises:
        UsageError: a device without a sheet.
    """
    import pandas as pd

    models = pd.read_csv(folder / "model_e2e.csv")
    models = models[~models["desc"].str.contains(DISTRIBUTED)]
    graphs = pd.read_parquet(folder / "opgraphs.parquet")
    layers = models.groupby("desc")["num_layer"].max().fillna(0).astype(int).to_dict()
    tables = [_workload(desc, graph, layers[desc]) for desc, graph in graphs.groupby("desc") if desc in layers]
    workloads = pd.concat(tables, ignore_index=True)
    labels = pd.read_parquet(folder / "op_labels_in_models.parquet")
    whole, table = _models(models), _labelled(labels, workloads)
    measured = pd.concat([whole, _operators(table)], ignore_index=True)
    run = pd.MultiIndex.from_frame(measured[["device", "workload"]])
    # the source ran on one of the two dies of an MI250, the sheet has both
    measured["noisy"] = run.isin(_contradicted(whole, table)) | measured["device"].eq("AMD_Instinct_MI250")
    sheets = {name: load(_DEVICE.get(name, name)).name for name in measured["device"].unique()}
    measured["device"] = measured["device"].map(sheets)
    return measured, workloads.drop(columns="name")


def _models(models: pd.DataFrame) -> pd.DataFrame:
    """Inference as measured; training whole (forward and backward, no step of the optimiser) and its forward part."""
    import pandas as pd

    training = models["desc"].str.contains("-train-")
    whole = models.assign(latency=models["label_e2e_latency"], phase=training.map({True: "training", False: "forward"}))
    forward = models[training].assign(latency=models["label_fw_latency"], phase="forward")
    table = pd.concat([whole, forward])
    return pd.DataFrame(
        {
            "device": table["device"],
            "level": "model",
            "op": "Model",
            "inputs": [[] for _ in range(len(table))],
            "math": "ieee",
            "attrs": "",
            "phase": table["phase"],
            "workload": table["desc"],
            "batch": table["desc"].str.removesuffix("-fusion").str.rpartition("-")[2].astype(int),
            "latency_s": table["latency"] * 1e-3,
            # the fused variants were run through torch.compile
            "executor": table["desc"].str.endswith("-fusion").map({True: "torch-compile", False: "torch"}),
        }
    )


def _workload(desc: str, table: pd.DataFrame, layers: int) -> pd.DataFrame:
    """Operators of a graph; those that share a position run as one kernel."""
    import pandas as pd

    graph = nodes(table)
    by_name = {node.name: node for node in graph}
    steps = zip(graph, counts(graph, layers), strict=True)
    run = [(node, count, operators(node, by_name, desc)) for node, count in steps]
    forward = [(node.name, count, found, "forward") for node, count, found in run if found]
    backward = [(node.name, count, found, "backward") for node, count, found in run if node.back and _computes(found)]
    order = forward + (backward[::-1] if "-train-" in desc else [])
    entries = [_entry(i, *step, operator) for i, step in enumerate(order) for operator in step[2]]
    return pd.DataFrame(entries).assign(workload=desc, dtype="float32")


def _computes(found: list[Operator]) -> bool:
    """Whether a backward pass has work: that of a sum hands the gradient on."""
    return any(operator.op != "Add" for operator in found)


def _entry(position: int, name: str, count: int, _: list[Operator], phase: str, operator: Operator) -> dict[str, Any]:
    return {
        "name": name,
        "position": position,
        "count": count,
        "op": operator.op,
        "inputs": operator.inputs,
        "attrs": operator.attrs,
        "math": "ieee" if operator.op in PRODUCTS else None,
        "phase": phase,
    }


def _labelled(labels: pd.DataFrame, workloads: pd.DataFrame) -> pd.DataFrame:
    """Operators of the graphs with the milliseconds measured for them, without nodes that did nothing.

    Those took no time, or less than half of what reading and writing their tensor once takes at full bandwidth: OPT's
    dropout of probability 0, a sum done in place before.
    """
    known = workloads.rename(columns={"name": "Name"}).drop(columns=["position", "dtype"])
    table = labels.rename(columns={"desc": "workload"}).merge(known, on=["workload", "Name"])
    table["latency"] = table["fw_latency"].where(table["phase"] == "forward", table["bw_latency"])
    bandwidth = {name: load(_DEVICE.get(name, name)).bandwidth_bytes_per_s for name in table["device"].unique()}
    twice = 8e3 * table["inputs"].map(lambda inputs: prod(inputs[0])) / table["device"].map(bandwidth)
    return table[(table["latency"] > 0) & ~(table["op"].isin(COPIES) & (table["latency"] < twice / 2))]


def _operators(table: pd.DataFrame) -> pd.DataFrame:
    """Measured operators, equal ones of one model by their median: layers of a kind repeat themselves."""
    keys = ["device", "workload", "op", "key", "attrs", "phase"]
    grouped = table.assign(key=table["inputs"].map(str)).groupby(keys, sort=False)
    first = grouped[["inputs", "math"]].first().assign(latency_s=grouped["latency"].median() * 1e-3).reset_index()
    return first.drop(columns="key").assign(level="operator", executor="torch")


def _contradicted(whole: pd.DataFrame, table: pd.DataFrame) -> list[tuple[str, str]]:
    """Devices and models whose forward pass and operators do not fit."""
    keys = ["device", "workload"]
    forward = table[table["phase"] == "forward"]
    parts = (forward["latency"] * forward["count"] * 1e-3).groupby([forward[key] for key in keys]).sum()
    ratio = (parts / whole[whole["phase"] == "forward"].set_index(keys)["latency_s"]).dropna()
    return list(ratio[~ratio.between(*AGREE)].index)
