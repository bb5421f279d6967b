"""What energy costs: kWh, money and CO2e of a month of serving or of a whole training run."""

from __future__ import annotations

from dataclasses import dataclass

from eopt.costmodel.costs import times
from eopt.costmodel.query import Interval

KWH_J = 3.6e6
MONTH_S = 365.25 / 12 * 86400.0


@dataclass(frozen=True)
class Rates:
    """What one kWh costs. None where nobody said; nothing is assumed.

    Attributes:
        price: money for a kWh, in any currency.
        carbon_g: grams of CO2e for a kWh.
    """

    price: float | None = None
    carbon_g: float | None = None


@dataclass(frozen=True)
class Bill:
    """An amount of energy in kWh, money in the currency of the price, and kilograms of CO2e."""

    energy_kwh: Interval
    money: Interval | None
    co2e_kg: Interval | None


def bill(energy_j: Interval, rates: Rates) -> Bill:
    """What an amount of joules costs."""
    kwh = times(energy_j, 1 / KWH_J)
    money = None if rates.price is None else times(kwh, rates.price)
    return Bill(kwh, money, None if rates.carbon_g is None else times(kwh, rates.carbon_g / 1000))


@dataclass(frozen=True)
class Run:
    """A training run on one device, back to back: checkpoints, evaluations and loading of data are not in it."""

    steps: int
    duration_s: Interval
    energy_j: Interval
    bill: Bill


def training_run(step_s: Interval, step_j: Interval, steps: int, rates: Rates) -> Run:
    """Steps of these seconds and joules, one after the other."""
    energy_j = times(step_j, steps)
    return Run(steps, times(step_s, steps), energy_j, bill(energy_j, rates))
