"""The learned model without torch: an ensemble of small networks over features and a hardware embedding.

embedding of a device = encoder(sheet) + latent learned from its measurements; the latent of an unseen device is zero.
Its last number is the host's: how much longer than usual the gap between two launches is. No sheet says that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.costmodel import gap, physics
from eopt.costmodel.embedding import Device
from eopt.costmodel.table import EXECUTORS, FAMILIES, FEATURES, PRODUCTS, Table, features, quantities

Array = np.ndarray[Any, Any]
SIMILAR = {"move": "pointwise"}
"""Families without measurements of their own, and whose network answers for them."""
POWER = "power"
DENSE = FEATURES + EXECUTORS.index("tensorrt")
"""Column of who measures with hardly a gap: its boards read up to twice the watts on kernels below 20 µs."""
POWER_INPUTS = FEATURES + 1 + physics.ACTIVITY


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

    def families(self) -> set[str]:
        """Those it answers for."""
        return {name.split("/")[1] for name in self.weights if name.endswith("/w1")} - {POWER}

    def sheet(self, member: int, chip: Device) -> Array:
        """float32[size] of what a sheet says."""
        part = f"{member}/encoder"
        scaled = (chip.features - self.weights[f"{part}/mean"]) / self.weights[f"{part}/std"]
        return np.asarray(self.weights[f"{part}/w"] @ scaled + self.weights[f"{part}/b"], dtype=np.float32)

    def embedding(self, member: int, chip: Device, latent: bool = True) -> Array:
        """float32[size + 1] of a device."""
        found = np.append(self.sheet(member, chip), np.float32(0.0))
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
        log_w = self.log_watts(seen, amounts, latency_s, chip)
        return Answer(latency_s, np.exp(log_w), np.mean([launch for _, launch in found], axis=0), logs.std(0))

    def log_seconds(self, family: Array, seen: Array, amounts: Array, known: Sequence[Array]) -> Array:
        """The mean of the members, which have these embeddings."""
        each = [np.log(self.seconds(member, family, seen, amounts, z)[0]) for member, z in enumerate(known)]
        return np.asarray(np.mean(each, axis=0))

    def log_watts(self, seen: Array, amounts: Array, latency_s: Array, chip: Device) -> Array:
        """The same of watts, given the latency. Too few boards were read for an embedding to have a say in it."""
        inputs = np.asarray(power_inputs(np, seen, amounts, latency_s), dtype=np.float32)
        nothing = np.empty(0, dtype=np.float32)
        outputs = [self._run(f"{member}/{POWER}", inputs, nothing) for member in range(self.members)]
        each = [np.log(physics.power(np, found.astype(np.float64), chip.tdp_w, chip.held)) for found in outputs]
        return np.asarray(np.mean(each, axis=0))

    def seconds(self, member: int, family: Array, seen: Array, amounts: Array, z: Array) -> tuple[Array, Array]:
        """One member's seconds and launch seconds; `family` holds codes or names."""
        seconds, launch = np.empty(len(family)), np.empty(len(family))
        for code in np.unique(family):
            rows = np.flatnonzero(family == code)
            name = code if isinstance(code, str) else FAMILIES[code]
            part = f"{member}/{SIMILAR.get(name, name)}"
            outputs = self._run(part, seen[rows, :FEATURES], z[:-1]).astype(np.float64)
            busy_s = physics.busy_s(np, outputs, amounts[rows], name in PRODUCTS)
            shaped = seen[rows, :FEATURES] @ self.weights[f"{part}/start/w"]
            start_s = physics.start_s(np, self.weights[f"{part}/start"], shaped, amounts[rows])
            seconds[rows] = physics.latency(np, busy_s + start_s, self._gap_s(member, part, seen[rows], z[-1]))
            launch[rows] = seconds[rows] - busy_s
        return seconds, launch

    def _gap_s(self, member: int, part: str, seen: Array, host: float) -> Array:
        learned = gap.learned(seen, self.weights[f"{member}/gap"], self.weights[f"{part}/gap"])
        return np.asarray(physics.gap_s(np, gap.log_known(np, seen), learned + host), dtype=np.float64)

    def _run(self, part: str, inputs: Array, z: Array) -> Array:
        """Two hidden layers of x sigmoid(x). The embedding is the same for all rows, so it enters as a bias."""
        w = self.weights
        first = w[f"{part}/w1"]
        width = inputs.shape[1]
        hidden = _silu(inputs @ first[:, :width].T + (first[:, width:] @ z + w[f"{part}/b1"]))
        hidden = _silu(hidden @ w[f"{part}/w2"].T + w[f"{part}/b2"])
        return np.asarray(hidden @ w[f"{part}/w3"].T + w[f"{part}/b3"])


def power_inputs(xp: Any, seen: Any, amounts: Any, latency_s: Any) -> Any:
    """(n, POWER_INPUTS) of kernels that take so long; `seen` as in `table.features`."""
    busy = physics.activity(xp, amounts, latency_s)
    return xp.concatenate([seen[:, :FEATURES], seen[:, DENSE : DENSE + 1], busy], 1)


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-np.clip(x, -80, None))))  # beyond it the exponential leaves float32
