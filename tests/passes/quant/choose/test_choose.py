"""The solvers against all assignments of small problems, and against each other on larger ones."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.passes.quant import choose
from eopt.passes.quant.choose import chain, greedy, milp
from eopt.passes.quant.choose.problem import Form, Option, Problem, Site, chains, conversions, cost_j, noise

OPTIONS = (("float", Form.FLOAT, Form.FLOAT), ("static", Form.STATIC, Form.STATIC), ("mixed", Form.STATIC, Form.FLOAT),
           ("dynamic", Form.DYNAMIC, Form.FLOAT))  # fmt: skip
JOULES = st.integers(0, 20).map(float)


@st.composite
def problems(draw: st.DrawFn, branching: bool, most: int = 5) -> Problem:
    """Random chains, or random graphs in which sites read any earlier tensors."""
    count = draw(st.integers(1, most))
    sites = []
    for number in range(count):
        earlier = [f"t{n}" for n in range(number)]
        before = [earlier[-1] if earlier and draw(st.booleans()) else f"in{number}"]
        reads = draw(st.lists(st.sampled_from([*earlier, "in"]), min_size=1, max_size=2)) if branching else before
        options = [Option(n, r, w, draw(JOULES), draw(st.integers(0, 4)) * (n != "float")) for n, r, w in OPTIONS]
        sites.append(Site(number, tuple(reads), f"t{number}", tuple(options[: draw(st.integers(1, 4))])))
    tensors = {name for site in sites for name in (*site.reads, site.writes)}
    pairs = [(a, b) for a in Form for b in Form if a != b]
    converted = {(name, *pair): draw(JOULES) for name in sorted(tensors) for pair in pairs}
    return Problem(tuple(sites), converted, frozenset(draw(st.sets(st.sampled_from(sorted(tensors))))))


def brute(problem: Problem, budget: float) -> float:
    best = math.inf
    for options in itertools.product(*(site.options for site in problem.sites)):
        chosen = {site.key: option for site, option in zip(problem.sites, options, strict=True)}
        if noise(chosen) <= budget:
            best = min(best, cost_j(problem, chosen))
    return best


@given(problems(branching=False), st.sampled_from([0.0, 1.0, 3.0, 7.0, math.inf]))
def test_the_dynamic_program_is_exact_on_chains(problem: Problem, budget: float):
    found = chains(problem)
    assert found is not None
    chosen = chain.solve(problem, found, budget)
    # of ways within a step the cheapest is kept, so one step for each site may be lost
    if chosen is None:
        assert brute(problem, budget * (1 - 5 / chain.STEPS)) == math.inf
        return
    assert noise(chosen) <= budget
    assert cost_j(problem, chosen) <= brute(problem, budget * (1 - 5 / chain.STEPS))
    assert cost_j(problem, chosen) >= brute(problem, budget)


@settings(max_examples=60)
@given(problems(branching=True, most=4), st.sampled_from([0.0, 2.0, 5.0, math.inf]))
def test_the_integer_program_is_exact_anywhere_and_greedy_is_no_better(problem: Problem, budget: float):
    chosen, best = milp.solve(problem, budget), brute(problem, budget)
    if chosen is None:
        assert best == math.inf
        return
    assert noise(chosen) <= budget * (1 + 1e-6)
    assert cost_j(problem, chosen) == pytest.approx(best, rel=1e-4, abs=1e-4)
    quick = greedy.solve(problem, budget)
    assert quick is None or (noise(quick) <= budget and cost_j(problem, quick) >= best - 1e-9)


@settings(max_examples=30)
@given(problems(branching=False), st.sampled_from([3.0, math.inf]))
def test_both_exact_methods_agree_on_chains(problem: Problem, budget: float):
    one, other = chain.solve(problem, chains(problem), budget), milp.solve(problem, budget)
    assert (one is None) == (other is None)
    if one is not None and math.isinf(budget):
        assert cost_j(problem, one) == pytest.approx(cost_j(problem, other), rel=1e-4, abs=1e-4)


def line(*options: Option, count: int) -> Problem:
    sites = tuple(Site(n, (f"t{n - 1}" if n else "x",), f"t{n}", options) for n in range(count))
    tensors = ["x", *(site.writes for site in sites)]
    converted = {(name, a, b): 3.0 for name in tensors for a in Form for b in Form if a != b}
    return Problem(sites, converted, frozenset({tensors[-1]}))


def test_neighbours_share_their_boundaries():
    """One int8 operator alone pays two conversions; ten in a row pay two as well. Greedy never begins."""
    problem = line(
        Option("float", Form.FLOAT, Form.FLOAT, 4.0), Option("static", Form.STATIC, Form.STATIC, 2.0, 1.0), count=10
    )
    chosen = choose.solve(problem, math.inf)
    assert {option.name for option in chosen.values()} == {"static"}
    assert cost_j(problem, chosen) == 10 * 2 + 2 * 3
    assert {option.name for option in greedy.solve(problem, math.inf).values()} == {"float"}
    alone = line(*problem.sites[0].options, count=1)
    assert choose.solve(alone, math.inf)[0].name == "float"


def test_a_budget_keeps_the_run_that_saves_most():
    problem = line(
        Option("float", Form.FLOAT, Form.FLOAT, 4.0), Option("static", Form.STATIC, Form.STATIC, 2.0, 1.0), count=10
    )
    chosen = choose.solve(problem, 5.01)
    static = [key for key, option in chosen.items() if option.name == "static"]
    assert len(static) == 5
    assert static == list(range(static[0], static[0] + 5))  # side by side
    assert len(conversions(problem, chosen)) == 2
    assert choose.solve(problem, 2.0) == {site.key: site.options[0] for site in problem.sites}  # too few to pay


def test_a_tensor_read_by_many_is_converted_once():
    options = (Option("float", Form.FLOAT, Form.FLOAT, 4.0), Option("static", Form.STATIC, Form.FLOAT, 2.0))
    sites = tuple(Site(n, ("x",), f"y{n}", options) for n in range(3))
    problem = Problem(sites, {("x", Form.FLOAT, Form.STATIC): 3.0})
    chosen = choose.solve(problem, math.inf)
    assert cost_j(problem, chosen) == 9.0
    assert {option.name for option in chosen.values()} == {"static"}
    assert choose.solve(Problem((), {}), 0.0) == {}
