"""LLM-Perf: joules of decoding 64 tokens, in float16 and with weights quantised by bitsandbytes or GPTQ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets import architectures, traced
from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {"A10_J": "nvidia-a10", "A100_J": "nvidia-a100-80gb-sxm", "T4_J": "nvidia-t4"}
PROMPT, TOKENS = 256, 64
WEIGHTS = {"bnb": "int4", "gptq": "int4", "unquantized": None}


def load(folder: Path) -> Dataset:
    """Rows of the three boards."""
    import pandas as pd

    table = pd.read_csv(folder / "llmperf_decode_energy_74x3.csv")
    table = table.melt(["model", "quant", "batch", "seq_len", "max_new_tokens"], list(DEVICES), "board", "joules")
    attrs = [
        attrs_text(unit=f"{new} tokens", past=past)
        for new, past in zip(table["max_new_tokens"], table["seq_len"], strict=True)
    ]
    rows = pd.DataFrame(
        {
            "source": "llmperf",
            "device": table["board"].map(DEVICES),
            "level": "model",
            "op": "Model",
            "inputs": [[] for _ in range(len(table))],
            "dtype": "float16",
            "weight_dtype": [WEIGHTS[quant] for quant in table["quant"]],
            "attrs": attrs,
            "phase": "forward",
            "executor": "torch",
            "library": table["quant"].where(table["quant"] != "unquantized").astype(object),
            "workload": table["model"],
            "batch": table["batch"],
            "energy_j": table["joules"],
            "energy_scope": "board",
            "noisy": False,
        }
    )
    return Dataset(rows, _workloads(rows) if traced.available() else None)


def _workloads(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Decoding of all tokens, as many steps with half of them in the cache besides the prompt."""
    entries: list[dict[str, Any]] = []
    known = rows[rows["workload"].isin(architectures.GENERATING)]
    for run in known.drop_duplicates(["workload", "library"]).to_dict("records"):
        document = {**architectures.GENERATING[run["workload"]], "dtype": "float16"}
        operators = traced.decoded(document, traced.Format(weights=run["weight_dtype"]))
        steps = [replace(operator, count=operator.count * TOKENS) for operator in operators]
        entries += traced.rows(traced.key(run), steps, {traced.BATCH: run["batch"], traced.KEYS: PROMPT + TOKENS // 2})
    return traced.frame(entries)


SOURCE = Source(
    name="llmperf",
    folder="energy/llmperf_matrix",
    load=load,
    upstream="https://github.com/ApartsinProjects/JoulePoint, of the LLM-Perf leaderboard of Hugging Face",
    licence="not stated",
    notes=(
        "one execution is the decoding of 64 tokens after 256, of one sequence; latency is not given",
        "joules follow from a logarithm whose unit, kWh, was inferred",
        "bitsandbytes is taken to be at four bits: models of 6 billion weights cost about as much as in float16 on A10",
        "operator lists are traced from the models' configurations; GPT-Neo as an OPT of its extents",
        "the A100 is taken to be the SXM board of 80 GB",
    ),
)
