"""Choosing the precision of every operator: `solve` takes the method that is exact for the problem at hand."""

from __future__ import annotations

from eopt.passes.quant.choose import chain, milp
from eopt.passes.quant.choose.problem import Assignment, Problem
from eopt.passes.quant.choose.problem import chains as chains_of


def solve(problem: Problem, budget: float) -> Assignment | None:
    """The assignment of least joules within the noise budget, or None where there is none.

    A dynamic program where sites form chains, a mixed-integer program elsewhere.
    """
    if not problem.sites:
        return {}
    found = chains_of(problem)
    return milp.solve(problem, budget) if found is None else chain.solve(problem, found, budget)
