"""What a whole model does on a device, summed over its kernels: all that the head of whole models reads.

No column holds a rate: seconds are those the network predicts, joules those of the prior's operations and bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.backends.target import Target
from eopt.costmodel.embedding import device, headroom_w
from eopt.costmodel.energy import DEFAULT_MEMORY_PJ, LLC_PJ, MEMORY_PJ, PICO, process_scale
from eopt.costmodel.network import Network
from eopt.costmodel.table import BACK_TO_BACK, FAMILIES, PRODUCTS, TYPES, Table, quantities

Array = np.ndarray[Any, Any]
QUANTISERS = ("bnb", "gptq")
"""Libraries whose kernels multiply by weights of four bits; each has its own."""
PARTS = ("narrow product", "wide product", "convolution", "attention", "vector", *QUANTISERS)
CAUSES = ("narrow", "wide", "vector", "dram", "llc")
FLOOR_S = 2e-6  # between two kernels of a stream, whatever they do
_NARROW = ("float16", "bfloat16", "float8", "float4", "int8", "int4")


@dataclass(frozen=True)
class Sums:
    """Workloads on devices, one row each.

    Attributes:
        parts: float64[n, len(PARTS)], predicted seconds of kernels without their launch, by kind.
        launches: float64[n], kernels; `quantised` float64[n, len(QUANTISERS)], products among them by library.
        causes: float64[n, len(CAUSES)], dynamic joules as the prior has them.
        idle_w, tdp_w: of the board, capped where it is.
        held: the clock that was set as a share of the boost clock; 1 where it is free.
        training, hosted: 1 for a step of training; for operators that a host launches one by one.
    """

    parts: Array
    launches: Array
    quantised: Array
    causes: Array
    idle_w: Array
    tdp_w: Array
    held: Array
    training: Array
    hosted: Array

    def __len__(self) -> int:
        return len(self.launches)

    def take(self, rows: Array) -> Sums:
        """Some of the rows, by mask or index."""
        return Sums(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def stacked(sums: Sequence[Sums]) -> Sums:
    """Several as one."""
    return Sums(*(np.concatenate([getattr(one, name) for one in sums]) for name in Sums.__dataclass_fields__))


def summed(
    network: Network,
    kernels: Table,
    counts: Array,
    target: Target,
    hosted: bool = True,
    training: bool = False,
    library: str = "",
) -> Sums:
    """One workload on a device, from its sheet.

    Args:
        counts: how often each kernel runs.
        hosted: a host launches each; else they are replayed from a captured graph.
        library: whose kernels multiply by quantised weights.
    """
    chip = device(target)
    found = network.answer(kernels, chip, BACK_TO_BACK, latent=False)
    seconds = np.maximum(found.latency_s - found.launch_s, 0.0) * counts
    quantised = (kernels.weight_bits == 4) & (library in QUANTISERS)
    kind = np.where(quantised, PARTS.index(library) if library in QUANTISERS else 0, _kinds(kernels))
    parts = np.bincount(kind, seconds, len(PARTS))
    parts[PARTS.index("vector")] += FLOOR_S * counts.sum()
    by_library = [float(counts[quantised].sum()) * (name == library) for name in QUANTISERS]
    row = (
        parts, counts.sum(), by_library, _causes(kernels, counts, target), chip.idle_w, chip.tdp_w, chip.held,
        training, hosted,
    )  # fmt: skip
    return Sums(*(np.array([column], dtype=float) for column in row))


def _kinds(kernels: Table) -> Array:
    family = np.array(FAMILIES)[kernels.family]
    narrow = np.isin(np.array(TYPES)[kernels.dtype], _NARROW)
    kind = np.where(narrow, PARTS.index("narrow product"), PARTS.index("wide product"))
    kind[~np.isin(family, PRODUCTS)] = PARTS.index("vector")
    kind[family == "conv"] = PARTS.index("convolution")
    kind[np.isin(family, ("attention", "decode"))] = PARTS.index("attention")
    return np.asarray(kind)


def _causes(kernels: Table, counts: Array, target: Target) -> list[float]:
    """Joules of arithmetic at the voltage of the clock, of bytes from memory, and of all bytes through the cache."""
    chip = device(target)
    amounts = quantities(kernels, chip)
    above_idle_w = headroom_w(chip.tdp_w, chip.idle_w)
    matrix = amounts[:, 0] * amounts[:, 7] * above_idle_w * counts
    narrow = np.isin(np.array(TYPES)[kernels.dtype], _NARROW)
    vector = amounts[:, 1] * counts * chip.vector_demand * above_idle_w
    total = (kernels.activation_bytes + kernels.weight_bytes) * counts
    kept = kernels.activation_bytes + kernels.weight_bytes <= chip.llc_bytes
    dram = np.where(kept, kernels.weight_bytes * counts, total)
    per_byte = MEMORY_PJ.get((target.memory_type or "").lower(), DEFAULT_MEMORY_PJ)
    return [
        float(matrix[narrow].sum()), float(matrix[~narrow].sum()), float(vector.sum()),
        PICO * per_byte * float(dram.sum()), PICO * LLC_PJ * process_scale(target.process_nm) * float(total.sum()),
    ]  # fmt: skip
