"""How tokens spread over the experts of a mixture: what one rank, the busiest of its group, has to do.

Each of `ep` ranks holds a share of the experts and works on the tokens that chose one of them. `balanced` gives every
expert as many. `power_law_a` draws loads whose density falls as x^-a between one token and four fifths of them, as the
collectors of AIConfigurator do (https://github.com/ai-dynamo/aiconfigurator); here its quantiles stand for the draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from eopt.ir.errors import InputError

Array = np.ndarray[Any, Any]
POWER_LAW = "power_law_"
BALANCED = ("", "balanced", "uniform")
_MOST = 0.8  # of all tokens, at one expert
_MOST_EXPERTS = 1 << 16  # each has a load of its own under a skew


@dataclass(frozen=True)
class Load:
    """Of the busiest rank.

    Attributes:
        rows: pairs of a token and an expert.
        met: experts with a token.
    """

    rows: int
    met: int


@lru_cache(maxsize=1 << 14)
def load(tokens: int, chosen: int, experts: int, local: int, skew: str = "") -> Load:
    """Load of a rank that holds `local` of `experts`, when each token chooses some of them.

    Raises:
        InputError: an unknown skew, or more experts than there are.
    """
    pairs = tokens * min(chosen, experts)
    if skew in BALANCED:
        rows = max(1, round(pairs * local / experts))
        return Load(rows, min(local, rows))
    if experts > _MOST_EXPERTS:
        raise InputError(f"skew {skew!r}: {experts} experts; at most {_MOST_EXPERTS}")
    loads = _power_law(tokens, pairs, experts, _exponent(skew))
    others = loads[1:].mean() if experts > 1 else 0.0  # beside the busiest expert stand any others
    rows = max(1, round(loads[0] + (local - 1) * others))
    met = 1 + (local - 1) * float((loads[1:] >= 0.5).mean() if experts > 1 else 0.0)
    return Load(rows, min(local, rows, round(met)))


def _exponent(skew: str) -> float:
    try:
        exponent = float(skew.removeprefix(POWER_LAW)) if skew.startswith(POWER_LAW) else 0.0
    except ValueError:
        exponent = 0.0
    if not 0 < exponent <= 10:
        raise InputError(f"skew {skew!r}: balanced, or power_law_ and an exponent up to 10, as power_law_1.2")
    return exponent


def _power_law(tokens: int, pairs: int, experts: int, exponent: float) -> Array:
    """Tokens of every expert, the busiest first; none has more than there are."""
    places = (np.arange(experts) + 0.5) / experts
    power = 1 - exponent if abs(1 - exponent) > 1e-6 else 1e-6  # at 1 the quantiles are exponentials
    highest = max(1.0, _MOST * tokens) ** power
    drawn = ((highest - 1) * places[::-1] + 1) ** (1 / power)
    loads = np.minimum(drawn / drawn.sum() * pairs, tokens)
    left = pairs - loads.sum()
    return np.asarray(loads + left * (tokens - loads) / max(1.0, float((tokens - loads).sum())))
