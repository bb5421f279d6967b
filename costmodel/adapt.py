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
    fits = [_fit(network, member, found, measured, chip) for member in range(network.members)]
    offset = float(np.mean([fit[1] for fit in fits]))
    latent = {member: fit[0] for member, fit in enumerate(fits)}
    sheet = [_logs(network, member, found, network.embedding(member, chip, False)) for member in latent]
    moved = [_logs(network, member, found, network.embedding(member, chip, False) + z) for member, z in latent.items()]
    before, after = np.mean(sheet, axis=0) - measured, np.mean(moved, axis=0) + offset - measured
    return Adapted(latent, offset, len(measured), *(float(np.median(np.abs(np.expm1(e)))) for e in (before, after)))


def _fit(network: Network, member: int, found: Samples, measured: Array, chip: Device) -> tuple[Array, float]:
    """The most probable latent and offset."""
    base = network.embedding(member, chip, latent=False)
    size = len(base)
    known = network.weights[f"{member}/latent"]
    precision = np.append(1 / np.maximum(known.std(0), LEAST_STD) ** 2, 1 / OFFSET_STD**2)
    state = np.zeros(size + 1)
    for _ in range(ROUNDS):
        here = _logs(network, member, found, base + state[:size].astype(np.float32))
        error = here + state[size] - measured
        slopes = np.stack([_slope(network, member, found, base, state, here, axis) for axis in range(size)], axis=1)
        jacobian = np.concatenate([slopes, np.ones((len(error), 1))], axis=1)
        weight = np.minimum(1.0, HUBER * NOISE / np.maximum(np.abs(error), 1e-9)) / NOISE**2
        normal = jacobian.T @ (weight[:, None] * jacobian) + np.diag(precision)
        state = state - np.linalg.solve(normal, jacobian.T @ (weight * error) + precision * state)
    return state[:size].astype(np.float32), float(state[size])


def _slope(network: Network, member: int, found: Samples, base: Array, state: Array, here: Array, axis: int) -> Array:
    moved = base + state[:-1].astype(np.float32)
    moved[axis] += STEP
    return (_logs(network, member, found, moved) - here) / STEP


def _logs(network: Network, member: int, found: Samples, z: Array) -> Array:
    return np.log(network.seconds(member, found.family, found.seen, found.amounts, z.astype(np.float32))[0])
