"""Bounded physics: what a network may say about a kernel, and the latency and power that follow.

    kernel = max_p(compute / u_c, memory / u_m) + start     t = max(kernel, gap of the host)     P = TDP (s + (1 - s) a)

The network chooses the utilisations u_c, u_m, the sharpness p of the maximum, how much of the working set stays in the
last-level cache and what an operation draws; the idle share s and the activity a. Each is squashed into the range that
physics allows, so an unseen device can be wrong by what utilisations differ and not by more. How long a kernel takes to
start and how often a host launches one are no matter of the device: an embedding has no say in either. The same code
runs on NumPy arrays and on torch tensors; `xp` is the module.
"""

from __future__ import annotations

from typing import Any

KERNEL_OUTPUTS, POWER_OUTPUTS = 5, 2
ACTIVITY = 6  # features of how busy the chip is
CLOCK = 8  # column of the quantities
LOG_COMPUTE = (-4.5, 0.0)  # logarithm of the share of the peak rate, lowest and highest
LOG_MEMORY = (-3.4, 0.1)  # of the bandwidth; a little above 1 as sheets round
WAVE_SHARE = 0.7  # how much of the loss to unfinished waves is charged before the network corrects it
VECTOR_SHARE = 0.3  # of vector work beside a product: most hides behind it
START_CYCLES, LOG_START = 3400.0, 2.0  # fill and drain of a kernel, and the logarithm of how far from it one may be
GAP_S, LOG_GAP = 1e-5, 7.0
OVERLAP = 8.0  # measured: flat at the gap of the host until a kernel takes that long, with hardly a knee
SHARPNESS = (1.2, 5.2)
THROTTLE = 0.4  # power as the rate to the 2.5: between a clock alone (1) and one with all of its voltage (3)
LOG_DEMAND = 1.0  # energies per operation are known to a factor of about three
IDLE_SHARE = (0.05, 0.35)
MOST_POWER = 1.03  # boards overshoot their limit a little


def latency(xp: Any, kernel_s: Any, gap_s: Any) -> Any:
    """Seconds from one kernel to the next: its own, or the host's until it has launched another, whichever is more."""
    return smooth_maximum(xp, kernel_s, gap_s, OVERLAP)


def busy_s(xp: Any, outputs: Any, quantities: Any, product: bool) -> Any:
    """Seconds a kernel works. `outputs` is (n, 5) of a network, `quantities` as in `table.quantities`."""
    on_matrix, on_vector, total, bandwidth, cache_bandwidth, cache, log_busy, demand = (
        quantities[:, i] for i in range(CLOCK)
    )
    log_u = _between(xp, outputs[:, 0] + 1.5, LOG_COMPUTE)
    log_u = log_u + WAVE_SHARE * log_busy if product else log_u
    resident = sigmoid(xp, 1.5 * (xp.log(cache) - xp.log(total) + 2 * xp.tanh(outputs[:, 3])))
    log_m = _between(xp, outputs[:, 1] + 1.7, LOG_MEMORY)
    memory_s = total * ((1 - resident) / bandwidth + resident / cache_bandwidth) * xp.exp(-log_m)
    work_s = on_matrix + VECTOR_SHARE * on_vector if product else on_vector
    # above the power limit clocks fall, and voltage with them: power grows faster than the rate, which so falls less
    demand = demand * xp.exp(LOG_DEMAND * xp.tanh(outputs[:, 4]))
    throttled = (1 + (demand * xp.exp(log_u)) ** 4) ** (THROTTLE / 4)
    compute_s = work_s * xp.exp(-log_u) * throttled
    p = SHARPNESS[0] + (SHARPNESS[1] - SHARPNESS[0]) * sigmoid(xp, outputs[:, 2])
    return smooth_maximum(xp, compute_s, memory_s, p)


def start_s(xp: Any, own: Any, shaped: Any, quantities: Any) -> Any:
    """Seconds a kernel takes to fill and drain the chip, or the few kernels that it really is.

    Args:
        own: of a family of kernels; shaped: (n,) what their types and extents add, within a factor of e.
    """
    cycles = START_CYCLES * xp.exp(_soft(xp, own + xp.tanh(shaped), LOG_START))
    return cycles / quantities[:, CLOCK]


def gap_s(xp: Any, log_known: Any, learned: Any) -> Any:
    """Seconds between two launches of a host: what its executor is known for, and what was learned besides."""
    return GAP_S * xp.exp(log_known + _soft(xp, learned, LOG_GAP))


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


def smooth_maximum(xp: Any, one: Any, other: Any, p: Any) -> Any:
    """(one^p + other^p)^(1/p): the longer of two, and up to 2^(1/p) times it where they are alike."""
    longer = xp.maximum(one, other)
    return longer * ((one / longer) ** p + (other / longer) ** p) ** (1 / p)


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return 1 / (1 + xp.exp(-xp.clip(x, -30.0, 30.0)))


def _soft(xp: Any, x: Any, most: float) -> Any:
    return most * xp.tanh(x / most)


def _between(xp: Any, x: Any, bounds: tuple[float, float]) -> Any:
    low, high = bounds
    return low + (high - low) * sigmoid(xp, x)
