"""Learn a device from a few measurements of it: its latent moves, and one offset of the executor; nothing else does.

Gauss-Newton on the logarithms of latencies, with a Gaussian prior around the embedding of the sheet: few measurements
move it little, and only in directions that they tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel.embedding import Device, device
from eopt.costmodel.learned import Learned, settled
from eopt.costmodel.network import SIMILAR, Network
from eopt.costmodel.query import Kernel
from eopt.costmodel.table import FAMILIES, features, quantities, table

Array = np.ndarray[Any, Any]
ROUNDS = 6
STEP = 1e-2  # of the finite differences, in units of the embedding
LEAST_STD = 0.15  # of a latent, where those of known devices say less
NOISE = 0.15  # of the logarithm of one latency: what the network leaves unexplained on devices it knows
OFFSET_STD = 0.2  # of the executor's offset, in the logarithm
HUBER = 2.0  # residuals beyond so many standard deviations count as that many


class Seen(Protocol):
    """Measured kernels as arrays, as of `samples.Samples`."""

    @property
    def family(self) -> Array: ...
    @property
    def seen(self) -> Array: ...
    @property
    def amounts(self) -> Array: ...
    @property
    def latency_s(self) -> Array: ...


@dataclass(frozen=True)
class Few:
    """See `Seen`."""

    family: Array
    seen: Array
    amounts: Array
    latency_s: Array


@dataclass(frozen=True)
class Adapted:
    """What a few measurements say about a device.

    Attributes:
        latent: by member, what is added to the embedding of the sheet.
        offset: added to the logarithm of every latency.
        count: measurements it is learnt from.
        error_before, error_after: median absolute error on them, as a share.
    """

    latent: Mapping[int, Array]
    offset: float
    count: int
    error_before: float
    error_after: float


def adapt(network: Network, found: Seen, chip: Device) -> Adapted:
    """Fit the latent of a device and the offset of the executor to samples of it.

    Raises:
        ValueError: no samples.
    """
    if not len(found.latency_s):
        raise ValueError("adapt: no measurements")
    measured = np.log(found.latency_s)
    sheet = network.embeddings(chip, latent=False)
    state = _fit(network, found, measured, sheet)
    latent = dict(enumerate(_latents(state, len(sheet))))
    before = _mean(network, found, sheet) - measured
    after = _mean(network, found, [z + latent[member] for member, z in enumerate(sheet)]) + state[-1] - measured
    errors = (float(np.median(np.abs(np.expm1(error)))) for error in (before, after))
    return Adapted(latent, float(state[-1]), len(measured), *errors)


def adapted(base: Learned, kernels: Sequence[Kernel], seconds: Array, target: Target, executor: Executor) -> Learned:
    """The model with this target among its devices; the same where it knows it, or none of the kernels."""
    network, chip = base.model.network, device(target)
    covered = [place for place, kernel in enumerate(kernels) if base.covers(kernel, target)]
    if chip.name in network.devices or not covered:
        return base
    found = few([kernels[place] for place in covered], seconds[covered], chip, executor)
    latent = adapt(network, found, chip).latent
    weights = dict(network.weights)
    for member in range(network.members):
        weights[f"{member}/latent"] = np.vstack([network.weights[f"{member}/latent"], latent[member]])
        weights[f"{member}/known"] = np.vstack([network.weights[f"{member}/known"], network.sheet(member, chip)])
    knows = Network(weights, network.members, (*network.devices, chip.name))
    return replace(base, model=replace(base.model, network=knows))


def few(kernels: Sequence[Kernel], seconds: Array, chip: Device, executor: Executor) -> Few:
    """Kernels that the network covers, as it sees them."""
    rows = table([settled(kernel, executor) for kernel in kernels])
    names = np.array([SIMILAR.get(name, name) for name in (FAMILIES[code] for code in rows.family)])
    return Few(names, features(rows, chip, executor.name), quantities(rows, chip), seconds)


def sensitivity(network: Network, found: Seen, chip: Device) -> tuple[Array, Array]:
    """float64[n, p] of the logarithm of latency along the axes of the embedding of each member, and how far devices
    differ along them, float64[p], before anything is measured."""
    sheet = network.embeddings(chip, latent=False)
    here = [_logs(network, member, found, z) for member, z in enumerate(sheet)]
    slopes = [_slopes(network, member, found, z, here[member]) / len(sheet) for member, z in enumerate(sheet)]
    return np.concatenate(slopes, axis=1), np.concatenate(_spreads(network))


def _spreads(network: Network) -> list[Array]:
    return [np.maximum(network.weights[f"{member}/latent"].std(0), LEAST_STD) for member in range(network.members)]


def _fit(network: Network, found: Seen, measured: Array, sheet: list[Array]) -> Array:
    """The most probable latents of all members in a row, and the offset: their mean is what is measured."""
    precision = np.append(1 / np.concatenate(_spreads(network)) ** 2, 1 / OFFSET_STD**2)
    state = np.zeros(len(precision))
    for _ in range(ROUNDS):
        moved = [z + own for z, own in zip(sheet, _latents(state, len(sheet)), strict=True)]
        here = [_logs(network, member, found, z) for member, z in enumerate(moved)]
        error = np.mean(here, axis=0) + state[-1] - measured
        slopes = [_slopes(network, member, found, moved[member], here[member]) for member in range(len(sheet))]
        jacobian = np.concatenate([*(part / len(sheet) for part in slopes), np.ones((len(error), 1))], axis=1)
        weight = np.minimum(1.0, HUBER * NOISE / np.maximum(np.abs(error), 1e-9)) / NOISE**2
        normal = jacobian.T @ (weight[:, None] * jacobian) + np.diag(precision)
        state = state - np.linalg.solve(normal, jacobian.T @ (weight * error) + precision * state)
    return state


def _latents(state: Array, members: int) -> list[Array]:
    return list(state[:-1].reshape(members, -1).astype(np.float32))


def _slopes(network: Network, member: int, found: Seen, z: Array, here: Array) -> Array:
    """By finite differences, one column for each axis of the embedding."""
    steps = STEP * np.eye(len(z), dtype=np.float32)
    return np.stack([(_logs(network, member, found, z + step) - here) / STEP for step in steps], axis=1)


def _mean(network: Network, found: Seen, embeddings: list[Array]) -> Array:
    return network.log_seconds(found.family, found.seen, found.amounts, embeddings)


def _logs(network: Network, member: int, found: Seen, z: Array) -> Array:
    return np.log(network.seconds(member, found.family, found.seen, found.amounts, z.astype(np.float32))[0])
