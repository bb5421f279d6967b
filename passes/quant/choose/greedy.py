"""What most tools do, to compare with: change one site at a time, best joules saved per noise first."""

from __future__ import annotations

import math

from eopt.passes.quant.choose.problem import Assignment, Option, Problem, Site, cost_j, noise


def solve(problem: Problem, budget: float) -> Assignment | None:
    """An assignment that no change of a single site improves within the budget, from the quietest one on.

    It does not see that two neighbours share a boundary until one of them has changed.
    """
    chosen: dict[int, Option] = {site.key: min(site.options, key=lambda o: o.noise) for site in problem.sites}
    if noise(chosen) > budget:
        return None
    while True:
        change = max(_changes(problem, chosen, budget), default=None, key=lambda found: found[0])
        if change is None:
            return chosen
        _, site, option = change
        chosen[site.key] = option


def _changes(problem: Problem, chosen: dict[int, Option], budget: float) -> list[tuple[float, Site, Option]]:
    """Every change that saves joules and fits, with the joules per noise it saves."""
    found: list[tuple[float, Site, Option]] = []
    now_j, spent = cost_j(problem, chosen), noise(chosen)
    for site in problem.sites:
        for option in site.options:
            louder = option.noise - chosen[site.key].noise
            saved_j = now_j - cost_j(problem, {**chosen, site.key: option})
            if saved_j > 1e-12 * abs(now_j) and spent + louder <= budget:
                found.append((saved_j / louder if louder > 0 else math.inf, site, option))
    return found
