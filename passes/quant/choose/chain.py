"""Exact on chains: a dynamic program over the form that travels and the noise spent so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eopt.passes.quant.choose.problem import Assignment, Form, Option, Problem, Site

STEPS = 4096  # of the budget: of ways whose noise lies in one step the cheapest is kept


@dataclass(frozen=True)
class _Label:
    """The cheapest way to a form with some noise spent, and how it was reached."""

    cost_j: float
    noise: float = 0.0
    option: Option | None = None
    before: _Label | None = None


def solve(problem: Problem, chains: Sequence[Sequence[Site]], budget: float) -> Assignment | None:
    """The cheapest assignment of a problem of chains, or None where none fits the budget.

    Time is linear in sites; a finite budget multiplies it by `STEPS` at most. What is found fits, and costs no more
    than the best assignment of a budget smaller by a step for each site.
    """
    states: dict[tuple[Form, int], _Label] = {(Form.FLOAT, 0): _Label(0.0)}
    order: list[Site] = []
    for chain in chains:
        states = {(Form.FLOAT, spent): label for (_, spent), label in _cheapest(states).items()}
        for site in chain:
            states = _reached(problem, site, states, budget)
            order.append(site)
        states = _ended(problem, chain[-1].writes, states)
    if not states:
        return None
    return _traced(order, min(states.values(), key=lambda label: label.cost_j))


def _reached(
    problem: Problem, site: Site, states: Mapping[tuple[Form, int], _Label], budget: float
) -> dict[tuple[Form, int], _Label]:
    (tensor,) = set(site.reads)
    reached: dict[tuple[Form, int], _Label] = {}
    for (form, _), label in states.items():
        for option in site.options:
            noise = label.noise + option.noise
            if noise > budget:
                continue
            total_j = label.cost_j + option.cost_j + _converted(problem, tensor, form, option.reads)
            _keep(reached, (option.writes, _step_of(noise, budget)), _Label(total_j, noise, option, label))
    return reached


def _step_of(noise: float, budget: float) -> int:
    return 0 if noise <= 0 or math.isinf(budget) else int(noise / budget * STEPS)


def _converted(problem: Problem, tensor: str, form: Form, wanted: Form) -> float:
    """A tensor that is pinned too has been turned into floats already."""
    needed = {form, wanted, *([Form.FLOAT] if tensor in problem.pinned else [])} - {form}
    return sum(problem.conversion_j[tensor, form, other] for other in needed)


def _ended(problem: Problem, tensor: str, states: Mapping[tuple[Form, int], _Label]) -> dict[tuple[Form, int], _Label]:
    """Behind the last site only those who are pinned to floats read."""
    ended: dict[tuple[Form, int], _Label] = {}
    for (form, spent), label in states.items():
        extra_j = _converted(problem, tensor, form, Form.FLOAT) if tensor in problem.pinned else 0.0
        _keep(ended, (form, spent), replace(label, cost_j=label.cost_j + extra_j))
    return ended


def _cheapest(states: Mapping[tuple[Form, int], _Label]) -> dict[tuple[Form, int], _Label]:
    """Chains do not touch: between two of them the form is forgotten."""
    best: dict[tuple[Form, int], _Label] = {}
    for (_, spent), label in states.items():
        _keep(best, (Form.FLOAT, spent), label)
    return best


def _keep(states: dict[tuple[Form, int], _Label], key: tuple[Form, int], label: _Label) -> None:
    known = states.get(key)
    if known is None or label.cost_j < known.cost_j:
        states[key] = label


def _traced(order: Sequence[Site], label: _Label | None) -> Assignment:
    options: list[Option] = []
    while label is not None:
        if label.option is not None:
            options.append(label.option)
        label = label.before
    return {site.key: option for site, option in zip(order, reversed(options), strict=True)}
