"""ML.ENERGY: joules by token, image or video of models that are served, three versions of the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets import mlenergy_steps, traced
from eopt.costmodel.datasets.base import Dataset, Source, attrs_text

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {
    "v1": {"A100": "nvidia-a100-40gb-sxm", "A40": "nvidia-a40", "V100": "nvidia-v100-32gb-pcie"},
    "v2": {"A100-SXM4-40GB": "nvidia-a100-40gb-sxm"},
    "v3": {"B200": "nvidia-b200-sxm"},
}
WEIGHTS = {
    "bfloat16": ("bfloat16", None, None),
    "fp8": ("float8_e4m3", None, None),
    "mxfp4": ("bfloat16", "float4_e2m1", "mx"),
}
"""Precision of weights -> dtype of activations, of weights where it differs, and scale."""


def load(folder: Path) -> Dataset:
    """Rows of the three versions; one execution makes one token, image or video."""
    import pandas as pd

    parts = [_first(folder), *_second(folder), *_third(folder)]
    rows = pd.concat(parts, ignore_index=True)
    common = {"source": "mlenergy", "level": "model", "op": "Model", "phase": "forward", "noisy": False}
    rows = rows.assign(**common, energy_scope="board", inputs=[[] for _ in range(len(rows))])
    return Dataset(rows, mlenergy_steps.workloads(rows) if traced.available() else None)


def _first(folder: Path) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_csv(folder / "v1_legacy_flat.csv.gz")
    return _rows(
        "v1",
        table["gpu"],
        table["model"],
        {"unit": "token", "gpus": 1, "task": table["task"], "past": _half(table["response_length"])},
        batch=1,
        latency_s=table["latency"] / table["response_length"],
        power_w=table["energy"] / table["latency"],
        energy_j=table["energy"] / table["response_length"],
        executor="torch",
    )


def _second(folder: Path) -> list[pd.DataFrame]:
    import pandas as pd

    table = pd.read_csv(folder / "v2_runs_flat.csv.gz")
    served = table[table["Avg TPOT (s)"].notna()]
    token = served["Energy/req (J)"] / served["Avg Output Tokens"]
    gpus = (served["TP"] * served["PP"]).astype(int)
    rows = _rows(
        "v2",
        served["gpu"],
        served["Model"],
        {"unit": "token", "gpus": gpus, "task": served["kind"], "past": _half(served["Avg Output Tokens"])},
        batch=served["Avg BS (reqs)"].round().clip(lower=1).astype(int),
        latency_s=served["Avg BS (reqs)"] / served["Token tput (tok/s)"],
        power_w=token * served["Token tput (tok/s)"],
        energy_j=token,
        executor="vllm",
    )
    return [rows, *(_drawn_second(table, unit) for unit in ("image", "video"))]


def _drawn_second(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    drawn = table[table[f"Energy/{unit} (J)"].notna()]
    joules, batch = drawn[f"Energy/{unit} (J)"], drawn["Batch size"].astype(int)
    steps, frames = drawn["Denoising steps"], drawn["Frames"]
    return _rows(
        "v2",
        drawn["gpu"],
        drawn["Model"],
        {"unit": unit, "gpus": 1, "task": drawn["kind"], "steps": steps, "frames": frames},
        batch=batch,
        latency_s=drawn["Batch latency (s)"],
        power_w=joules * batch / drawn["Batch latency (s)"],
        energy_j=joules,
        executor="torch",
    )


def _third(folder: Path) -> list[pd.DataFrame]:
    import pandas as pd

    table = pd.read_csv(folder / "v3_runs_flat.csv.gz", low_memory=False)
    served = table[table["energy_per_token_joules"].notna()]
    rows = _rows(
        "v3",
        served["gpu_model"],
        served["model_id"],
        {
            "unit": "token",
            "gpus": served["num_gpus"],
            "task": served["task"],
            "past": _half(served["avg_output_len"]),
        },
        batch=served["avg_batch_size"].round().clip(lower=1).astype(int),
        latency_s=served["avg_batch_size"] / served["output_throughput_tokens_per_sec"],
        power_w=served["avg_power_watts"],
        energy_j=served["energy_per_token_joules"],
        executor="vllm",
        **_formats(served["weight_precision"]),
    )
    return [rows, *(_drawn_third(table, unit) for unit in ("image", "video"))]


def _drawn_third(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    drawn = table[table[f"energy_per_{unit}_joules"].notna()]
    size = {name: drawn[f"{unit}_{name}"] for name in ("height", "width")}
    steps, frames = drawn["inference_steps"], drawn["num_frames"]
    return _rows(
        "v3",
        drawn["gpu_model"],
        drawn["model_id"],
        {"unit": unit, "gpus": drawn["num_gpus"], "task": drawn["task"], "steps": steps, "frames": frames, **size},
        batch=drawn["batch_size"].astype(int),
        latency_s=drawn["batch_latency_s"],
        power_w=drawn["avg_power_watts"],
        energy_j=drawn[f"energy_per_{unit}_joules"],
        executor="torch",
        **_formats(drawn["weight_precision"]),
    )


def _half(tokens: pd.Series) -> pd.Series:
    """Tokens in a cache on average: half of the answer."""
    return (tokens / 2).round()


def _formats(names: pd.Series) -> dict[str, list[str | None]]:
    found = [WEIGHTS[name] for name in names]
    return {column: [entry[i] for entry in found] for i, column in enumerate(("dtype", "weight_dtype", "scale"))}


def _rows(version: str, gpus: pd.Series, models: pd.Series, given: dict[str, Any], **columns: Any) -> pd.DataFrame:
    """Rows of one version, whose stack differs from that of the others: their models are workloads of their own."""
    import pandas as pd

    known = pd.DataFrame(given, models.index).astype(object)
    attrs = [attrs_text(**_whole(entry)) for entry in known.to_dict("records")]
    table = pd.DataFrame({**columns, "attrs": attrs}, models.index)
    return table.assign(device=gpus.replace(DEVICES[version]), workload=f"{version}:" + models)


def _whole(entry: dict[str, Any]) -> dict[str, Any]:
    """Attributes without gaps; numbers of things are whole."""
    return {
        name: value if isinstance(value, str) else int(value)
        for name, value in entry.items()
        if value == value  # NaN is not
    }


SOURCE = Source(
    name="mlenergy",
    folder="energy/mlenergy",
    load=load,
    upstream="https://github.com/ml-energy/leaderboard, commit 0cd52dab897c5d91a45f4d413038f3b8b4251b0f; "
    "https://github.com/ml-energy/leaderboard-v2, commit c3af7f31e231a2a7021c5f8e2a54dd712d02e6e2",
    licence="Apache-2.0",
    notes=(
        "the stack differs between versions: workloads are `v1:`, `v2:` and `v3:` and must not be mixed",
        "`unit` is what the joules are for: a token, image or video, of all `gpus` boards; power is theirs together",
        "latency of tokens is the mean time between two of one sequence, waits included: sequences at once over "
        "tokens a second; that of images and videos is of a batch: power times latency is the energy of "
        "a batch, not of the unit",
        "batch is the mean number of sequences at once in v2 and v3; v1 had one",
        "`past` is half of the mean answer: how long prompts are is not given",
        "operator lists are steps of decoding, on one of the boards, whose heads and widths tensor parallelism "
        "divides; what boards send each other is not in them",
        "v1 boards are not named in full: A100 is taken to be the SXM board of 40 GB, V100 the PCIe board of 32 GB",
        "number formats are given in v3 only; products of fp8 models are taken to be fp8, those of mxfp4 ones bfloat16",
    ),
)
