"""Exact anywhere: a mixed-integer program, solved by HiGHS (Huangfu and Hall 2018) through scipy.

Binary x[s, o] says that site s takes option o. For every reader of a tensor t, z[t, w, r] >= x(its writer writes w) +
x(that reader reads r) - 1: a conversion is paid once for all readers. z is continuous; minimising makes it 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from eopt.passes.quant.choose.problem import Assignment, Form, Problem, Site, readers

GAP = 1e-6  # relative distance to the optimum at which the search ends


@dataclass
class _Program:
    """Rows and columns of the program as they grow."""

    cost: list[float] = field(default_factory=list)
    rows: list[dict[int, float]] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def column(self, cost: float) -> int:
        self.cost.append(cost)
        return len(self.cost) - 1

    def row(self, terms: dict[int, float], low: float, high: float) -> None:
        self.rows.append(terms)
        self.low.append(low)
        self.high.append(high)


def solve(problem: Problem, budget: float, seconds: float = 60.0) -> Assignment | None:
    """The cheapest assignment, or None where none fits the budget (or none was found in `seconds`)."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    scale = max((abs(option.cost_j) for site in problem.sites for option in site.options), default=1.0) or 1.0
    program = _Program()
    columns = {
        (site.key, option.name): program.column(option.cost_j / scale)
        for site in problem.sites
        for option in site.options
    }
    for site in problem.sites:
        program.row({columns[site.key, option.name]: 1.0 for option in site.options}, 1.0, 1.0)
    if math.isfinite(budget) and budget > 0:
        noisy = {columns[site.key, o.name]: o.noise / budget for site in problem.sites for o in site.options if o.noise}
        program.row(noisy, -np.inf, 1.0)
    elif not budget:
        silent = {columns[site.key, o.name]: 1.0 for site in problem.sites for o in site.options if o.noise > 0}
        program.row(silent, -np.inf, 0.0)
    binary = len(columns)
    for conversion_j, rows in _conversions(problem, columns):
        paid = program.column(conversion_j / scale)
        for terms, low in rows:
            program.row({**terms, paid: 1.0}, low, np.inf)
    entries = [(number, column, value) for number, row in enumerate(program.rows) for column, value in row.items()]
    numbers, places, values = zip(*entries, strict=True) if entries else ((), (), ())
    matrix = coo_array((values, (numbers, places)), shape=(len(program.rows), len(program.cost)))
    found = milp(
        program.cost,
        integrality=[1] * binary + [0] * (len(program.cost) - binary),
        bounds=Bounds(0.0, 1.0),
        constraints=LinearConstraint(matrix, program.low, program.high),
        options={"time_limit": seconds, "mip_rel_gap": GAP},
    )
    if found.x is None:
        return None
    return {site.key: max(site.options, key=lambda o: found.x[columns[site.key, o.name]]) for site in problem.sites}


def _conversions(
    problem: Problem, columns: dict[tuple[int, str], int]
) -> Iterator[tuple[float, list[tuple[dict[int, float], float]]]]:
    """Joules of every conversion, and (terms, low) of its rows `z - x(writes w) - x(reads r) >= -1`; what no site
    writes, or what is pinned, has an x of 1."""
    producers = {site.writes: site for site in problem.sites}
    by_tensor = readers(problem)
    for name in dict.fromkeys([*by_tensor, *problem.pinned]):
        made = _writing(producers.get(name), columns)
        read = [_reading(site, columns) for site in by_tensor.get(name, ())]
        read += [{Form.FLOAT: []}] if name in problem.pinned else []
        for written, form in product(made, Form):
            rows = [_row(made[written], taken[form]) for taken in read if form in taken]
            if rows and form != written:
                yield problem.conversion_j[name, written, form], rows


def _row(writers: list[int], takers: list[int]) -> tuple[dict[int, float], float]:
    return dict.fromkeys([*writers, *takers], -1.0), 1.0 - bool(writers) - bool(takers)


def _writing(site: Site | None, columns: dict[tuple[int, str], int]) -> dict[Form, list[int]]:
    """Columns by the form they write; what no site writes is float."""
    if site is None:
        return {Form.FLOAT: []}
    found: dict[Form, list[int]] = {}
    for option in site.options:
        found.setdefault(option.writes, []).append(columns[site.key, option.name])
    return found


def _reading(site: Site, columns: dict[tuple[int, str], int]) -> dict[Form, list[int]]:
    found: dict[Form, list[int]] = {}
    for option in site.options:
        found.setdefault(option.reads, []).append(columns[site.key, option.name])
    return found
