"""Precision under an accuracy contract: the fewest joules that still hold it, found by bisecting the noise allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from eopt.ir.model import Model
from eopt.passes.base import Context, Trial
from eopt.passes.contract import Verdict
from eopt.passes.quant import choose, sensitivity
from eopt.passes.quant.choose.problem import FLOAT, Assignment, Buildable, Problem, cost_j, with_noise

TRIALS = 8  # halvings of the exponent of the noise: below a tenth of a decibel of where the contract breaks
WIDEST = 1e-6  # of the noise of all operators together: less than that is float


@dataclass(frozen=True)
class Chosen:
    """An assignment with the model it gives, and all that was tried for it."""

    assignment: Assignment
    model: Model
    trials: tuple[Trial, ...] = ()


@dataclass
class _Search:
    choices: Buildable
    problem: Problem
    check: Callable[[Model], Verdict]
    energy_j: Callable[[Model], float | None]
    tried: list[tuple[Chosen, Trial]] = field(default_factory=list)

    def attempt(self, assignment: Assignment) -> bool:
        """Try an assignment; True where the contract holds."""
        model = self.choices.built(assignment)
        verdict = self.check(model)
        low = sum(option.name != FLOAT for option in assignment.values()) / max(1, len(assignment))
        trial = Trial(self.energy_j(model), verdict, low)
        self.tried.append((Chosen(assignment, model), trial))
        return verdict.holds


def held(choices: Buildable, problem: Problem, context: Context, energy_j: Callable[[Model], float | None]) -> Chosen:
    """The cheapest assignment that the contract of `context.check` holds for.

    The cheapest of all is tried first. If it breaks the contract, the noise of every operator is measured, and the
    budget of noise is bisected (in its logarithm) between none and all of it: the joules an operator saves and the
    noise it adds decide together whether it goes back to float. The contract is checked on a whole model each time, so
    that the figures of single operators only rank. Without samples to measure on, the cheapest is all that is tried.
    """
    free = choose.solve(problem, math.inf)
    assert free is not None
    if context.check is None:
        return Chosen(free, choices.built(free))
    search = _Search(choices, problem, context.check, energy_j)
    if search.attempt(free) or context.data is None:
        return search.tried[0][0]
    search.problem = with_noise(problem, sensitivity.measured(choices, problem, context))
    _bisect(search, context)
    return _best(search)


def _bisect(search: _Search, context: Context) -> None:
    loudest = {site.key: max(site.options, key=lambda option: option.noise) for site in search.problem.sites}
    finite = [option.noise for option in loudest.values() if math.isfinite(option.noise)]
    high = math.log(max(sum(finite), 1e-30))
    low = high + math.log(WIDEST)
    seen: list[Assignment] = [search.tried[0][0].assignment]
    for number in range(TRIALS):
        context.progress("accuracy", number, TRIALS)
        middle = (low + high) / 2
        assignment = choose.solve(search.problem, math.exp(middle))
        if assignment is None:
            low = middle
            continue
        if assignment in seen:
            holds = search.tried[seen.index(assignment)][1].holds
        else:
            seen.append(assignment)
            holds = search.attempt(assignment)
        low, high = (middle, high) if holds else (low, middle)
    context.progress("accuracy", TRIALS, TRIALS)


def _best(search: _Search) -> Chosen:
    """Of what holds, that of fewest joules; else the model as it was."""
    holding = [item for item in search.tried if item[1].holds]
    if not holding:
        floats: Assignment = {site.key: site.options[0] for site in search.problem.sites}
        return Chosen(floats, search.choices.model, tuple(trial for _, trial in search.tried))
    best = min(holding, key=lambda item: (item[1].energy_j or 0.0, cost_j(search.problem, item[0].assignment)))
    trials = tuple(replace(trial, chosen=item is best) for item in search.tried for trial in item[1:])
    return replace(best[0], trials=trials)
