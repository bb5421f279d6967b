"""Does the sum of operators make up the whole model? The closure test of energy measurements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot

from eopt.backends.base import Unknown
from eopt.backends.meters.base import EnergyReading


@dataclass(frozen=True)
class Closure:
    """The operators' energy as a share of the whole model's; 1 closes.

    Attributes:
        share, share_lo, share_hi: with a 95 % interval; errors are taken as independent.
        sum_j, whole_j: of one call of the model.
    """

    share: float
    share_lo: float
    share_hi: float
    sum_j: float
    whole_j: float

    @property
    def closes(self) -> bool:
        """True where the interval holds 1."""
        return self.share_lo <= 1 <= self.share_hi


def closure(parts: Iterable[tuple[EnergyReading, int]], whole: EnergyReading) -> Closure | Unknown:
    """Operators, each with how often one call of the model executes it, against the whole model.

    A share below 1 is what happens between operators; above 1, what they save by running one after another. Relative
    errors of a sum and of a divisor add in quadrature; those of one operator that is executed n times add up.
    """
    counted = list(parts)
    if not counted:
        return Unknown(("no operator was measured",))
    scopes = {reading.scope for reading, _ in counted} | {whole.scope}
    if len(scopes) > 1:
        return Unknown((f"energies of different scope do not add up: {', '.join(sorted(scopes))}",))
    sum_j = sum(count * reading.energy_j for reading, count in counted)
    below_j = hypot(*(count * (reading.energy_j - reading.energy_j_lo) for reading, count in counted))
    above_j = hypot(*(count * (reading.energy_j_hi - reading.energy_j) for reading, count in counted))
    share = sum_j / whole.energy_j
    down = hypot(below_j, share * (whole.energy_j_hi - whole.energy_j)) / whole.energy_j
    up = hypot(above_j, share * (whole.energy_j - whole.energy_j_lo)) / whole.energy_j
    return Closure(share, share - down, share + up, sum_j, whole.energy_j)
