"""Learn a device from a few measurements of it: its latent moves, and one offset of the executor; nothing else does.

Gauss-Newton on the logarithms of latencies, with a Gaussian prior around the embedding of the sheet: few measurements
move it little, and only in directions that they tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.costmodel.embedding import Device
from eopt.costmodel.network import Network
from eopt.costmodel.samples import Samples

Array = np.ndarray[Any, Any]
ROUNDS = 6
STEP = 1e-2  # of the finite differences, in units of the embedding
LEAST_STD = 0.15  # of a latent, where those of known devices say less
NOISE = 0.15  # of the logarithm of one latency: what the network leaves unexplained on devices it knows
OFFSET_STD = 0.2  # of the executor's offset, in the logarithm
HUBER = 2.0  # residuals beyond so many standard deviations count as that many


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


def adapt(network: Network, found: Samples, chip: Device) -> Adapted:
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


def _fit(network: Network, found: Samples, measured: Array, sheet: list[Array]) -> Array:
    """The most probable latents of all members in a row, and the offset: their mean is what is measured."""
    spread = [np.maximum(network.weights[f"{member}/latent"].std(0), LEAST_STD) for member in range(len(sheet))]
    precision = np.append(1 / np.concatenate(spread) ** 2, 1 / OFFSET_STD**2)
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


def _slopes(network: Network, member: int, found: Samples, z: Array, here: Array) -> Array:
    """By finite differences, one column for each axis of the embedding."""
    steps = STEP * np.eye(len(z), dtype=np.float32)
    return np.stack([(_logs(network, member, found, z + step) - here) / STEP for step in steps], axis=1)


def _mean(network: Network, found: Samples, embeddings: list[Array]) -> Array:
    return network.log_seconds(found.family, found.seen, found.amounts, embeddings)


def _logs(network: Network, member: int, found: Samples, z: Array) -> Array:
    return np.log(network.seconds(member, found.family, found.seen, found.amounts, z.astype(np.float32))[0])
