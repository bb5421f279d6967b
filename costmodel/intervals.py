"""How wide a 90 % interval is: quantiles of residuals on devices left out, by kind of kernel.

Split conformal prediction over groups (https://arxiv.org/abs/2009.14193): a device is the unit that is exchangeable, so
each has the same mass. Kinds are nested: family, type, scale, and whether the kernel is small; what few generations
were measured of leans on the kind above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from typing import Any

import numpy as np

from eopt.costmodel.samples import Samples
from eopt.costmodel.table import FEATURES, FIRST_SCALE, SCALES, TYPES

Array = np.ndarray[Any, Any]
COVERAGE = 0.9
FEWEST = 50  # residuals below which a kind gets no interval of its own
SMALL_S = 2e-5  # of predicted latency: below it what is off is mostly the start and the launch
LEVELS = 4
# Half of what engines differ by on equal work, in the logarithm: medians of vLLM against TensorRT on B200 and GB200 are
# 0.06 for plain bfloat16 products, 0.2 for attention and nvfp4, 0.4 for float8 (aiconfigurator, 320,000 pairs).
UNSAID, UNSAID_SCALED = 0.1, 0.3


def kinds(family: str, dtype: Array, scale: Array, predicted_s: Array) -> tuple[Array, Array]:
    """Names of the finest kinds in rows of a family, as `gemm|bfloat16|block|small`, and the place of each row in them.

    `dtype` and `scale` are codes as in `table`.
    """
    code = (dtype.astype(np.int64) * len(SCALES) + scale) * 2 + (predicted_s < SMALL_S)
    found, place = np.unique(code, return_inverse=True)
    names = [_name(family, *divmod(int(each), 2)) for each in found]
    return np.array(names), place


def _name(family: str, typed: int, small: int) -> str:
    dtype, scale = divmod(typed, len(SCALES))
    return "|".join((family, TYPES[dtype], SCALES[scale], "small" if small else "large"))


def of_samples(found: Samples, predicted_s: Array) -> Array:
    """The kind of every sample."""
    scale = found.seen[:, FIRST_SCALE : FIRST_SCALE + len(SCALES)].argmax(1)
    dtype = found.seen[:, FIRST_SCALE + len(SCALES) : FEATURES].argmax(1)
    result = np.empty(len(scale), dtype=object)
    for family in np.unique(found.family):
        rows = np.flatnonzero(found.family == family)
        names, place = kinds(str(family), dtype[rows], scale[rows], predicted_s[rows])
        result[rows] = names[place]
    return result.astype(str)


def fit(kind: Array, error: Array, device: Array, generation: Sequence[str]) -> dict[str, float]:
    """Logarithm of half an interval by kind, of every level.

    Args:
        kind: of each row; error: logarithm of predicted over measured, NaN where there is none.
        device: of each row, an index into `generation`.
    """
    known = np.isfinite(error)
    kind, error, device = kind[known], np.abs(error[known]), device[known]
    names, place = np.unique(kind, return_inverse=True)
    result: dict[str, float] = {}
    for level in range(1, LEVELS + 1):
        above = np.array(["|".join(name.split("|")[:level]) for name in names])
        for name in np.unique(above):
            rows = np.flatnonzero((above == name)[place])
            if len(rows) < FEWEST:
                continue
            own = max(half(error[rows], device[rows]), 1e-3)
            count = len({generation[number] for number in np.unique(device[rows])})
            result[name] = _leaning(own, result.get(_parent(name)), count)
    return result


def widths(found: Mapping[str, float], kind: Array, otherwise: float = float("nan")) -> Array:
    """float64[n] of the finest level there is, by row."""
    names, place = np.unique(kind, return_inverse=True)
    known = [next((found[name] for name in _upwards(each) if name in found), otherwise) for each in names]
    return np.array(known, dtype=np.float64)[place]


def unsaid(scale: Array) -> Array:
    """What half an interval grows by where nobody said which engine runs a kernel; `scale` codes as in `table`."""
    return np.where(scale == SCALES.index(""), UNSAID, UNSAID_SCALED)


def _leaning(own: float, above: float | None, generations: int) -> float:
    share = generations / (generations + 1)
    return own if above is None else exp(share * log(own) + (1 - share) * log(above))


def half(errors: Array, device: Array) -> float:
    """Half of the interval that holds the share `COVERAGE` of absolute errors, each device counting the same."""
    counts = np.bincount(device)[device]
    order = np.argsort(errors)
    mass = np.cumsum(1.0 / counts[order])
    return float(errors[order][np.searchsorted(mass, COVERAGE * mass[-1])])


def _upwards(name: str) -> Iterator[str]:
    while name:
        yield name
        name = _parent(name)


def _parent(name: str) -> str:
    return name.rpartition("|")[0]
