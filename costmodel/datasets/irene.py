"""IrEne: energy at the wall of operators, modules and models of seven transformers on two machines."""

from __future__ import annotations

from collections.abc import Callable
from math import isclose, prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eopt.costmodel.datasets.base import Dataset, Source, attrs_text
from eopt.ir.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {1: "nvidia-gtx-1070", 2: "nvidia-gtx-1080-ti"}
LEVELS = {"ml1": "operator", "ml2": "operator", "module": "module", "model": "model"}
OPS = {
    "Conv1D": "Gemm",
    "Embedding": "Gather",
    "LayerNorm": "LayerNormalization",
    "Linear": "Gemm",
    "MatMul": "MatMul",
    "Softmax": "Softmax",
    "Tanh": "Tanh",
}
TOLERANCE = 0.01  # of FLOPs, between the source's figure and that of our shapes
Shapes = list[list[int]]


class Sizes(NamedTuple):
    """What shapes follow from: a model's extents, and those of a run."""

    width: int
    heads: int
    inner: int
    batch: int
    length: int
    bytes: float


BASE = (768, 12, 3072)
MODELS = {"sshleifer/tiny-ctrl": (16, 2, 2)}
"""Width, heads and inner width of models that are not `BASE`."""

VOCABULARY = 50257  # rows of a table of embeddings: only those that are looked up are read


def _linear(rows: Callable[[Sizes], int], fans: Callable[[Sizes], tuple[int, int]]) -> Callable[[Sizes], Shapes]:
    def shapes(sizes: Sizes) -> Shapes:
        fan_in, fan_out = fans(sizes)
        return [[rows(sizes), fan_in], [fan_in, fan_out], [fan_out]]

    return shapes


def _tokens(sizes: Sizes) -> int:
    return sizes.batch * sizes.length


def _products(sizes: Sizes) -> Shapes:
    # the product with the values is as large, and was not measured apart
    head = sizes.width // sizes.heads
    return [[sizes.batch, sizes.heads, *extents] for extents in ((sizes.length, head), (head, sizes.length))]


def _lookup(sizes: Sizes) -> Shapes:
    # positions are looked up once for all sequences in some models: what is written tells how many
    return [[VOCABULARY, sizes.width], [round(sizes.bytes / (4 * sizes.width + 8))]]


_SQUARE = _linear(_tokens, lambda sizes: (sizes.width, sizes.width))
_OUT = _linear(_tokens, lambda sizes: (sizes.width, sizes.inner))
_IN = _linear(_tokens, lambda sizes: (sizes.inner, sizes.width))
SHAPES: tuple[tuple[str, Callable[[Sizes], Shapes]], ...] = (
    ("pooler.dense:Linear", _linear(lambda sizes: sizes.batch, lambda sizes: (sizes.width, sizes.width))),
    ("attn.c_attn:Conv1D", _linear(_tokens, lambda sizes: (sizes.width, 3 * sizes.width))),
    ("attn.c_proj:Conv1D", _SQUARE),
    ("attention.output.dense:Linear", _SQUARE),
    ("intermediate.dense:Linear", _OUT),
    ("ffn.lin1:Linear", _OUT),
    ("ffn.0:Linear", _OUT),
    ("mlp.c_fc:Conv1D", _OUT),
    ("output.dense:Linear", _IN),
    ("ffn.lin2:Linear", _IN),
    ("ffn.2:Linear", _IN),
    ("mlp.c_proj:Conv1D", _IN),
    (":Linear", _SQUARE),
    (":MatMul", _products),
    (":Softmax", lambda sizes: [[sizes.batch, sizes.heads, sizes.length, sizes.length]]),
    (":LayerNorm", lambda sizes: [[_tokens(sizes), sizes.width], [sizes.width], [sizes.width]]),
    (":Tanh", lambda sizes: [[sizes.batch, sizes.width]]),
    (":Embedding", _lookup),
)
"""End of an operator's name -> its operands; the first match counts."""


def load(folder: Path) -> Dataset:
    """Rows of both machines: layers that repeat one measurement are one row, by model."""
    return Dataset(_rows(_once(_read(folder))))


def composites(folder: Path) -> pd.DataFrame:
    """Modules and models with what they consist of, one row for each row of `load` above operators.

    Columns: device, level, op, workload, energy_j, and `operators`: (kind in the source, ONNX name, extents) of every
    measured operator inside, layers counted; elementwise work between them was not measured.
    """
    table = _read(folder)
    runs = ["device", "model_name", "batch_size", "seq_len"]
    inside = {key: _operators(group) for key, group in table[table["level"] == "operator"].groupby(runs)}
    whole = _once(table[table["level"] != "operator"])
    keys = whole[runs].itertuples(index=False, name=None)
    found = [
        _below(name, level, inside.get(key, []))
        for key, name, level in zip(keys, whole["level_name"], whole["level"], strict=True)
    ]
    names = {"model_name": "workload", "energy_mean": "energy_j"}
    kept = whole[["device", "level", "op", "model_name", "energy_mean"]]
    return kept.rename(columns=names).assign(operators=found)


def _operators(group: pd.DataFrame) -> list[tuple[str, tuple[str, str, Shapes]]]:
    """Names in the model, and what `composites` says of each operator of a run."""
    columns = (
        group[name] for name in ("level_name", "model_name", "batch_size", "seq_len", "flops", "mem_bytes", "op")
    )
    return [
        (name, (name.rpartition(":")[2], op, _query("operator", name, model, int(batch), int(length), work)[0]))
        for name, model, batch, length, flops, traffic, op in zip(*columns, strict=True)
        for work in [(flops * 1e6, traffic * 2**20)]
    ]


def _below(name: str, level: str, inside: list[tuple[str, tuple[str, str, Shapes]]]) -> list[tuple[str, str, Shapes]]:
    scope = name.rpartition(":")[0]
    return [query for own, query in inside if level == "model" or own.startswith((f"{scope}.", f"{scope}:"))]


def _read(folder: Path) -> pd.DataFrame:
    import pandas as pd

    parts = [
        pd.read_csv(path).assign(device=device, level=level)
        for number, device in DEVICES.items()
        for name, level in LEVELS.items()
        if (path := folder / f"device_{number}_{name}_level_features.csv.gz").is_file()
    ]
    table = pd.concat(parts, ignore_index=True)
    kinds = table["level_name"].str.rpartition(":")[2].where(table["level"] != "model", "Model")
    return table.assign(op=kinds.where(table["level"] != "operator", kinds.map(OPS)))


def _once(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["device", "level", "op", "flops", "mem_bytes", "batch_size", "seq_len", "model_name"]
    grouped = table.groupby(keys, sort=False, dropna=False)
    # a row's shape is that of its first layer
    return grouped[["times_mean", "energy_mean"]].median().join(grouped["level_name"].first()).reset_index()


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    batch, length = table["batch_size"].astype(int), table["seq_len"].astype(int)
    work = zip(table["flops"] * 1e6, table["mem_bytes"] * 2**20, strict=True)
    columns = (table["level"], table["level_name"], table["model_name"], batch, length, work)
    queries = [_query(level, name, model, *run) for level, name, model, *run in zip(*columns, strict=True)]
    return pd.DataFrame(
        {
            "source": "irene",
            "device": table["device"],
            "level": table["level"],
            "op": table["op"],
            "inputs": [shapes for shapes, _ in queries],
            "dtype": "float32",
            "attrs": [attrs for _, attrs in queries],
            "phase": "forward",
            "executor": "torch",
            "workload": table["model_name"],
            "batch": batch,
            "latency_s": table["times_mean"],
            "power_w": table["energy_mean"] / table["times_mean"],
            "energy_j": table["energy_mean"],
            "energy_scope": "wall",
            "noisy": False,
        }
    )


def _query(level: str, name: str, model: str, batch: int, length: int, work: tuple[float, float]) -> tuple[Shapes, str]:
    """Operands and attributes: of operators by their names, of the rest the sum of FLOPs and bytes."""
    flops, traffic = work
    if level != "operator":
        return [[batch, length]], attrs_text(flops=round(flops), mem_bytes=round(traffic))
    found = next((shapes for end, shapes in SHAPES if name.endswith(end)), None)
    if found is None:
        raise InputError(f"irene: the shape of {name!r} is not known")
    shapes = found(Sizes(*MODELS.get(model, BASE), batch, length, traffic))
    _check(name, shapes, flops)
    return shapes, ""


def _check(name: str, shapes: Shapes, flops: float) -> None:
    if not name.endswith((":Linear", ":Conv1D", ":MatMul")):
        return
    depth, outputs = shapes[1][-2], prod(shapes[0][:-1]) * shapes[1][-1]
    # the source counts the bias of Linear, but not that of Conv1D and the pooler
    if not any(isclose(flops, outputs * each, rel_tol=TOLERANCE) for each in (2 * depth, 2 * depth + 1)):
        raise InputError(f"irene: {name!r} has {flops:.4g} FLOPs, its shapes {shapes} do not")


SOURCE = Source(
    name="irene",
    folder="energy/irene",
    load=load,
    upstream="https://github.com/StonyBrookNLP/irene, commit 72e5d911070ed4a0ed30c866068c18ba89c1dd7e",
    licence="none stated: ask the authors before passing it on",
    notes=(
        "energy is that of the whole machine at the wall meter, power is energy over time; one execution",
        "machine 1 is taken to be a GTX 1070: memory at 3802 MHz while it computes, softmax at 200 GB/s of 256, 5.8 "
        "TFLOP/s of 7.4 at the clock that was read",
        "machine 2 is taken to be a GTX 1080 Ti: memory at 5005 MHz while it computes, softmax at 356 GB/s, which a "
        "GTX 1080 (320) has not",
        "NVML's joules exceed the limit of one board of machine 1 and are not used: it may have several",
        "rows that repeat one measurement over layers are one row, by model, operator, FLOPs, bytes, batch and length",
        "shapes follow from names and widths of the models and give the FLOPs of the source within 1 %; the two "
        "products of attention, and products up and down of equal size, were measured as one",
        "clocks and utilisation were read during the runs and are left out",
    ),
)
