"""NeuSight: float32 operators and models on eager torch 2.1."""

from __future__ import annotations

from pathlib import Path

from eopt.costmodel.datasets import neusight_models, neusight_ops
from eopt.costmodel.datasets.base import COLUMNS, Dataset, Source


def load(folder: Path) -> Dataset:
    """Operators alone, operators in models, models; and what the models run."""
    import pandas as pd

    models, workloads = neusight_models.rows(folder)
    operators = neusight_ops.rows(folder).assign(executor="torch", noisy=False)
    table = pd.concat([operators, models], ignore_index=True).assign(source="neusight", dtype="float32")
    return Dataset(table[[name for name in COLUMNS if name in table]], workloads)


SOURCE = Source(
    name="neusight",
    folder="latency/neusight",
    load=load,
    upstream="https://github.com/sitar-lab/NeuSight, commit 6945927d",
    licence="MIT",
    notes=(
        "Float32 by eager torch 2.1 without TF32; the harness keeps the 5 fastest of 25 runs, launch included.",
        "Alone: 318,781 rows; 85 repeats pooled by their median. Kernel names, grids and the train/test split are "
        "left out.",
        "Convolutions ask for TF32, as torch does; none of their four devices has it. 2,168 pass 1.1 times the peak "
        "(Winograd).",
        "Graphs hold one layer: `count` repeats it. With it the operators sum to 0.85 to 1.25 of the forward pass, "
        "but for 7 runs, whose rows are noisy: A100 on BERT (2) and GPT-2, MI210 and MI250 on two trainings each.",
        "MI250 rows are noisy: one of its two dies was measured, the sheet has both.",
        "Models: 3 distributed runs are left out; training is forward and backward without a step of the optimiser.",
        "Operators in models: 8,629 labels, of which 1,874 rows remain: views, sizes, indexing, masks and nodes "
        "that did nothing are left out, equal operators of one model pooled.",
        "Switch's routing by index and its reciprocal roots are not among the operators of its workload.",
        "Workloads of `-fusion` runs give the operators of one fused kernel the same position.",
    ),
)
