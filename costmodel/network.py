"""The learned model without torch: an ensemble of small networks over features and a hardware embedding.

embedding of a device = encoder(sheet) + latent learned from its measurements; the latent of an unseen device is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.costmodel import physics
from eopt.costmodel.embedding import Device
from eopt.costmodel.table import EXECUTORS, FAMILIES, FEATURES, PRODUCTS, Table, features, quantities

Array = np.ndarray[Any, Any]
SIMILAR = {"move": "pointwise"}
"""Families without measurements of their own, and whose network answers for them."""
POWER = "power"


@dataclass(frozen=True)
class Answer:
    """Of each row of a table: seconds, watts, and the logarithm of the spread between the members of the ensemble."""

    latency_s: Array
    power_w: Array
    launch_s: Array
    log_spread: Array


@dataclass(frozen=True)
class Network:
    """An ensemble.

    Attributes:
        weights: by name, `member/part/array`.
        members: how many.
        devices: names of those with a latent, in the order of `member/latent`.
    """

    weights: Mapping[str, Array]
    members: int
    devices: tuple[str, ...]

    def embedding(self, member: int, chip: Device, latent: bool = True) -> Array:
        """float32[size] of a device."""
        part = f"{member}/encoder"
        scaled = (chip.features - self.weights[f"{part}/mean"]) / self.weights[f"{part}/std"]
        found = self.weights[f"{part}/w"] @ scaled + self.weights[f"{part}/b"]
        if latent and chip.name in self.devices:
            found = found + self.weights[f"{member}/latent"][self.devices.index(chip.name)]
        return np.asarray(found, dtype=np.float32)

    def embeddings(self, chip: Device, latent: bool = True) -> list[Array]:
        """Of a device, by member; without `latent` the sheet alone."""
        return [self.embedding(member, chip, latent) for member in range(self.members)]

    def answer(self, rows: Table, chip: Device, executor: str, latent: bool = True) -> Answer:
        """Latency and power of every row; members are averaged in the logarithm."""
        amounts, seen = quantities(rows, chip), features(rows, chip, executor)
        known = self.embeddings(chip, latent)
        found = [self.seconds(member, rows.family, seen, amounts, z) for member, z in enumerate(known)]
        logs = np.log([seconds for seconds, _ in found])
        latency_s = np.exp(logs.mean(0))
        log_w = self.log_watts(seen, amounts, latency_s, known, chip)
        return Answer(latency_s, np.exp(log_w), np.mean([launch for _, launch in found], axis=0), logs.std(0))

    def power(self, rows: Table, chip: Device, executor: str, latency_s: Array, latent: bool = True) -> Array:
        """Watts when the latency is known."""
        amounts, seen = quantities(rows, chip), features(rows, chip, executor)
        return np.asarray(np.exp(self.log_watts(seen, amounts, latency_s, self.embeddings(chip, latent), chip)))

    def log_seconds(self, family: Array, seen: Array, amounts: Array, known: Sequence[Array]) -> Array:
        """The mean of the members, which have these embeddings."""
        each = [np.log(self.seconds(member, family, seen, amounts, z)[0]) for member, z in enumerate(known)]
        return np.asarray(np.mean(each, axis=0))

    def log_watts(self, seen: Array, amounts: Array, latency_s: Array, known: Sequence[Array], chip: Device) -> Array:
        """The same of watts, given the latency."""
        each = [np.log(self.watts(member, seen, amounts, latency_s, z, chip)) for member, z in enumerate(known)]
        return np.asarray(np.mean(each, axis=0))

    def seconds(self, member: int, family: Array, seen: Array, amounts: Array, z: Array) -> tuple[Array, Array]:
        """One member's seconds and launch seconds; `family` holds codes or names."""
        seconds, launch = np.empty(len(family)), np.empty(len(family))
        for code in np.unique(family):
            rows = np.flatnonzero(family == code)
            name = code if isinstance(code, str) else FAMILIES[code]
            outputs = self._run(f"{member}/{SIMILAR.get(name, name)}", seen[rows, :FEATURES], z).astype(np.float64)
            shared = self._launch(member, SIMILAR.get(name, name), seen[rows])
            seconds[rows] = physics.latency(np, outputs, shared, amounts[rows], name in PRODUCTS)
            launch[rows] = physics.launch_s(np, outputs, shared)
        return seconds, launch

    def watts(self, member: int, seen: Array, amounts: Array, latency_s: Array, z: Array, chip: Device) -> Array:
        """One member's watts, given the latency."""
        busy = physics.activity(np, amounts, latency_s).astype(np.float32)
        outputs = self._run(f"{member}/{POWER}", np.concatenate([seen[:, :FEATURES], busy], axis=1), z)
        return np.asarray(physics.power(np, outputs.astype(np.float64), chip.tdp_w, chip.held))

    def _launch(self, member: int, name: str, seen: Array) -> Array:
        """Of the executor, and what a family needs besides: some launch several kernels. The device has little say."""
        executor = seen[:, -len(EXECUTORS) :] @ self.weights[f"{member}/launch/w"][0]
        return np.asarray(executor + self.weights[f"{member}/{name}/launch"], dtype=np.float64)

    def _run(self, part: str, inputs: Array, z: Array) -> Array:
        """Two hidden layers of x sigmoid(x). The embedding is the same for all rows, so it enters as a bias."""
        w = self.weights
        first = w[f"{part}/w1"]
        width = inputs.shape[1]
        hidden = _silu(inputs @ first[:, :width].T + (first[:, width:] @ z + w[f"{part}/b1"]))
        hidden = _silu(hidden @ w[f"{part}/w2"].T + w[f"{part}/b2"])
        return np.asarray(hidden @ w[f"{part}/w3"].T + w[f"{part}/b3"])


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-np.clip(x, -80, None))))  # beyond it the exponential leaves float32
