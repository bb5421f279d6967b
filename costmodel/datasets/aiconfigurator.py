"""AIConfigurator: latency and board power of serving kernels, operator by operator."""

from __future__ import annotations

from pathlib import Path

from eopt.costmodel.datasets import aic_attention, aic_gemm, aic_moe, aic_other
from eopt.costmodel.datasets.base import Dataset, Source

PARTS = (aic_gemm, aic_attention, aic_moe, aic_other)


def load(folder: Path) -> Dataset:
    """Every table of the source, one below the other."""
    import pandas as pd

    return Dataset(pd.concat([rows for part in PARTS for rows in part.load(folder)], ignore_index=True))


SOURCE = Source(
    name="aiconfigurator",
    folder="latency/aiconfigurator",
    load=load,
    upstream="https://github.com/ai-dynamo/aiconfigurator, head of 2026-08-21",
    licence="Apache-2.0",
    notes=(
        "Files `latency_*` are vLLM 0.24 (0.20 on B60, 0.14 on A100) without power, `power_*` vLLM 0.22 and "
        "TensorRT-LLM 1.3: the same point in both is two rows.",
        "Pooled by their median: 408 repeats of attention and 200 of the latent products, whose two shapes the file "
        "does not tell apart.",
        "Power is NVML's mean over a second of the kernel in a loop; no reading is below 5 % of the TDP or beyond "
        "115 % of the limit, and no limit differs from the TDP.",
        "81,744 rows of TensorRT-LLM's decode attention are noisy: they beat the memory's bandwidth by half and more.",
        "vLLM's attention on a float8 cache may quantise the query: 12 rows on B300 and GB300 pass the bfloat16 peak.",
        "MoE: 4,023 rows say that they are not gated; 16,552 of Nemotron-H by vLLM 0.24 are taken to be. `skew` is "
        "how tokens are spread over experts, `ep` how many ranks share them; absent operands are null.",
        "Quantisation with a computed scale is a sum of two medians without power; the file has their difference.",
        "Modules (MLA, DSA, GatedDeltaNet, Mamba2) have [[batch, new tokens]] as inputs and every other column in "
        "attrs.",
    ),
)
