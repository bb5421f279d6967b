"""Bounded physics: what a network may say about a kernel, and the latency and power that follow.

    t = max_p(compute / u_c, memory / u_m) + launch          P = TDP (s + (1 - s) a)

The network chooses the utilisations u_c, u_m, the sharpness p of the maximum, how much of the working set stays in the
last-level cache, what an operation draws, and the launch time; the idle share s and the activity a. Each is squashed
into the range physics allows, so an unseen device can be wrong by what utilisations differ and not by more. The same
code runs on NumPy arrays and on torch tensors; `xp` is the module.
"""

from __future__ import annotations

from typing import Any

LATENCY_OUTPUTS, POWER_OUTPUTS = 6, 2
LOG_COMPUTE = (-4.5, 0.0)  # logarithm of the share of the peak rate, lowest and highest
LOG_MEMORY = (-3.4, 0.1)  # of the bandwidth; a little above 1 as sheets round
WAVE_SHARE = 0.7  # how much of the loss to unfinished waves is charged before the network corrects it
VECTOR_SHARE = 0.3  # of vector work beside a product: most hides behind it
LAUNCH_S, LOG_LAUNCH, OWN_LAUNCH = 3e-6, 2.5, 1.2
SHARPNESS = (1.2, 5.2)
THROTTLE = 0.5  # power as the square of the rate, between a clock alone (1) and a clock with its voltage (1/3)
LOG_DEMAND = 1.0  # energies per operation are known to a factor of about three
IDLE_SHARE = (0.05, 0.35)
MOST_POWER = 1.03  # boards overshoot their limit a little


def latency(xp: Any, outputs: Any, shared: Any, quantities: Any, product: bool) -> Any:
    """Seconds. `outputs` is (n, 6) of a network, `shared` (n,) of the launch, `quantities` as in `table.quantities`."""
    on_matrix, on_vector, total, bandwidth, cache_bandwidth, cache, log_busy, demand = (
        quantities[:, i] for i in range(8)
    )
    log_u = _between(xp, outputs[:, 0] + 1.5, LOG_COMPUTE)
    log_u = log_u + WAVE_SHARE * log_busy if product else log_u
    resident = sigmoid(xp, 1.5 * (xp.log(cache) - xp.log(total) + 2 * xp.tanh(outputs[:, 4])))
    log_m = _between(xp, outputs[:, 1] + 1.7, LOG_MEMORY)
    memory_s = total * ((1 - resident) / bandwidth + resident / cache_bandwidth) * xp.exp(-log_m)
    work_s = on_matrix + VECTOR_SHARE * on_vector if product else on_vector
    # above the power limit clocks fall, and voltage with them: power grows faster than the rate, which so falls less
    demand = demand * xp.exp(LOG_DEMAND * xp.tanh(outputs[:, 5]))
    throttled = (1 + (demand * xp.exp(log_u)) ** 4) ** (THROTTLE / 4)
    compute_s = work_s * xp.exp(-log_u) * throttled
    p = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * sigmoid(xp, outputs[:, 3])
    longer = xp.maximum(compute_s, memory_s)
    both = longer * ((compute_s / longer) ** p + (memory_s / longer) ** p) ** (1 / p)
    return both + launch_s(xp, outputs, shared)


def launch_s(xp: Any, outputs: Any, shared: Any) -> Any:
    """The part of the latency that is launching: mostly the executor's, and so `shared` (n,) by all families."""
    return LAUNCH_S * xp.exp(LOG_LAUNCH * xp.tanh(shared / 2) + OWN_LAUNCH * xp.tanh(outputs[:, 2]))


def power(xp: Any, outputs: Any, tdp_w: Any, held: float = 1.0) -> Any:
    """Watts of the board, its clock held at a share of the boost clock. `outputs` is (n, 2) of a network.

    Dynamic power follows the clock: that of the cores falls faster, as voltage falls too, that of memory does not fall.
    """
    low, high = IDLE_SHARE
    idle = low + (high - low) * sigmoid(xp, outputs[:, 0] - 1)
    return tdp_w * (idle + (MOST_POWER - idle) * sigmoid(xp, outputs[:, 1]) * held)


def activity(xp: Any, quantities: Any, latency_s: Any) -> Any:
    """(n, 6) features of how busy a kernel keeps the chip, given how long it takes."""
    compute = (quantities[:, 0] + quantities[:, 1]) / latency_s
    memory = quantities[:, 2] / quantities[:, 3] / latency_s
    logs = [xp.log(xp.clip(share, 1e-6, 4.0)) / 3 + 1 for share in (compute, memory)]
    duration = xp.log(latency_s / 1e-5)
    shares = [xp.clip(compute, 0.0, 1.5), xp.clip(memory, 0.0, 3.0), duration / 3, xp.tanh(latency_s / 1e-5)]
    return xp.stack([*logs, *shares], 1)


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return 1 / (1 + xp.exp(-xp.clip(x, -30.0, 30.0)))


def _between(xp: Any, x: Any, bounds: tuple[float, float]) -> Any:
    low, high = bounds
    return low + (high - low) * sigmoid(xp, x)
