"""The frontier of loss against joules: what a pass tried under its accuracy contract, as data and as table cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from eopt.passes.base import Trial
from eopt.tools.report.tree import Json, finite
from eopt.tools.report.units import figure, percent, si


def described(trials: Sequence[Trial]) -> Json:
    """The keys `bound` and `trials` of a pass: the contract's bound (None without trials), and what was tried, from the
    fewest joules to the most, or where they are unknown from most operators in low precision to fewest."""
    ordered = sorted(trials, key=lambda trial: (math.inf if trial.energy_j is None else trial.energy_j, -trial.share))
    bound = ordered[0].verdict if ordered else None  # one contract, so the same for all
    return {
        "bound": None if bound is None else {"required": finite(bound.required), "unit": bound.unit},
        "trials": [_described(trial) for trial in ordered],
    }


def _described(trial: Trial) -> Json:
    return {
        "energy_j": trial.energy_j,
        "measured": finite(trial.verdict.measured),
        "holds": trial.holds,
        "share": trial.share,
        "chosen": trial.chosen,
    }


def fruitless(step: Json) -> bool:
    """True where low precision was tried, and none of it held the contract."""
    return bool(step["trials"]) and not any(trial["holds"] and trial["share"] for trial in step["trials"])


def priced(step: Json) -> bool:
    """True where the joules of all trials are known."""
    return all(trial["energy_j"] is not None for trial in step["trials"])


def cells(step: Json) -> Iterator[tuple[str, ...]]:
    """Of each trial: joules where they are known, share in low precision, the contract's figure."""
    for trial in step["trials"]:
        joules = (si(trial["energy_j"], "J"),) if priced(step) else ()
        yield (*joules, percent(trial["share"]), _measured(trial))


def _measured(trial: Json) -> str:
    """An infinite figure is that of a model without any difference, or of one whose outputs are not finite."""
    if trial["measured"] is None:
        return "no difference" if trial["holds"] else "not finite"
    return figure(trial["measured"])
