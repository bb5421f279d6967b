"""Devices left out: which rows that takes away, and how far a model trained without them is off on them.

A device is one canonical sheet in every source. Leaving an architecture out takes all its devices. Chips that differ in
memory or form only are siblings: predicting one from the other looks like skill and is reported as what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel.adapt import adapt
from eopt.costmodel.embedding import device
from eopt.costmodel.network import POWER, Network
from eopt.costmodel.samples import Samples

Array = np.ndarray[Any, Any]
# Architectures as generations: what shares a design is left out together.
GENERATIONS = {
    "pascal": "pascal", "volta": "volta", "turing": "turing", "ampere": "ampere", "ada": "ada", "hopper": "hopper",
    "blackwell": "blackwell", "cdna1": "cdna", "cdna2": "cdna", "cdna3": "cdna", "xe2": "arc", "xe": "arc",
}  # fmt: skip


@dataclass(frozen=True)
class Residuals:
    """Of each sample, predicted without its device: NaN where nothing was predicted or measured.

    Attributes:
        latency: logarithm of predicted over measured seconds.
        power: of watts, given the measured latency.
        energy: of joules, latency and power both predicted.
    """

    latency: Array
    power: Array
    energy: Array


def generation(name: str) -> str:
    """The generation of a device by its sheet's architecture."""
    arch = targets.load(name).arch
    return GENERATIONS.get(arch, arch)


def left_out(found: Samples, devices: Sequence[str] = (), generations: Sequence[str] = ()) -> Array:
    """True for samples of these devices and generations."""
    gone = [name in devices or generation(name) in generations for name in found.devices]
    return np.array(gone)[found.device]


def residuals(network: Network, found: Samples, latent: bool = False) -> Residuals:
    """How far a network is off on samples; without `latent` the sheets alone answer."""
    count = len(found.latency_s)
    latency, power, energy = (np.full(count, np.nan) for _ in range(3))
    for place in np.unique(found.device):
        rows = np.flatnonzero(found.device == place)
        chip = device(targets.load(found.devices[place]))
        rows = rows[np.isin(found.family[rows], sorted(network.families()))]
        if not len(rows):
            continue
        seen, amounts, known = found.seen[rows], found.amounts[rows], network.embeddings(chip, latent)
        seconds = np.exp(network.log_seconds(found.family[rows], seen, amounts, known))
        latency[rows] = np.log(seconds / found.latency_s[rows])
        if f"0/{POWER}/w1" in network.weights:
            given = np.exp(network.log_watts(seen, amounts, found.latency_s[rows], chip))
            own = np.exp(network.log_watts(seen, amounts, seconds, chip))
            power[rows] = np.log(given / found.power_w[rows])
            energy[rows] = np.log(own * seconds / (found.power_w[rows] * found.latency_s[rows]))
    return Residuals(latency, power, energy)


def score(error: Array, device: Array) -> dict[str, float | int]:
    """Mean and median absolute error in percent of logarithms, devices weighted equally; {} where all are NaN."""
    known = np.isfinite(error)
    apes, device = 100 * np.abs(np.expm1(error[known])), device[known]
    each = [apes[device == place] for place in np.unique(device)]
    if not each:
        return {}
    return {
        "mean": round(float(np.mean([part.mean() for part in each])), 1),
        "median": round(float(np.mean([np.median(part) for part in each])), 1),
        "devices": len(each),
    }


def adapted(network: Network, found: Samples, shots: int, seed: int = 0) -> Array:
    """As the latency of `residuals`, with every device known from so many samples of it; those are NaN."""
    error = np.full(len(found.latency_s), np.nan)
    rng = np.random.default_rng(seed)
    for place in np.unique(found.device):
        rows = np.flatnonzero((found.device == place) & np.isin(found.family, sorted(network.families())))
        if len(rows) <= 2 * shots:
            continue
        shown = rng.choice(rows, shots, replace=False)
        chip = device(targets.load(found.devices[place]))
        learnt = adapt(network, found.take(shown), chip)
        asked = np.setdiff1d(rows, shown)
        known = [z + learnt.latent[member] for member, z in enumerate(network.embeddings(chip, latent=False))]
        logs = network.log_seconds(found.family[asked], found.seen[asked], found.amounts[asked], known)
        error[asked] = logs + learnt.offset - np.log(found.latency_s[asked])
    return error
