"""Which precision each operator computes in, as an optimisation problem over operators and the tensors between them.

A site (an operator) takes one of its options. An option reads its tensors in one form, writes its result in one, costs
joules and adds noise. A tensor read in another form than it is written in is converted once, whoever reads it so. The
solvers look for the assignment of least joules whose noise stays within a budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from eopt.ir.model import Model

FLOAT = "float"  # name of the option that changes nothing


class Form(StrEnum):
    """How a tensor travels: as floats, on a grid found in calibration, or on one found when the model runs."""

    FLOAT = "float"
    STATIC = "static"
    DYNAMIC = "dynamic"


@dataclass(frozen=True)
class Option:
    """One way to compute a site.

    Attributes:
        name: of the precision.
        reads, writes: form of its tensors.
        cost_j: joules of its kernel, conversions left out.
        noise: power of the error at the model's outputs over that of the signal, were this the only change.
    """

    name: str
    reads: Form
    writes: Form
    cost_j: float
    noise: float = 0.0


@dataclass(frozen=True)
class Site:
    """An operator with a choice.

    Attributes:
        key: names it in an assignment.
        reads: tensors whose form the option decides.
        writes: the tensor it makes.
        options: at least one.
    """

    key: int
    reads: tuple[str, ...]
    writes: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Problem:
    """Sites in execution order, and the tensors between them.

    Attributes:
        conversion_j: joules of turning a tensor from one form into another.
        pinned: tensors that somebody besides the sites reads as floats.
    """

    sites: tuple[Site, ...]
    conversion_j: Mapping[tuple[str, Form, Form], float]
    pinned: frozenset[str] = field(default=frozenset())


Assignment = Mapping[int, Option]
"""The option of each site, by its key."""


class Buildable(Protocol):
    """Something whose operators can be given a precision each."""

    @property
    def model(self) -> Model:
        """All of it in float."""
        ...

    def built(self, chosen: Assignment) -> Model:
        """The model for an assignment; what it does not name is float."""
        ...

    def written(self, key: int) -> tuple[str, ...]:
        """Tensors that the operators of a site write."""
        ...


def cost_j(problem: Problem, chosen: Assignment) -> float:
    """Joules of all kernels and conversions."""
    kernels = sum(option.cost_j for option in chosen.values())
    return kernels + sum(problem.conversion_j[conversion] for conversion in conversions(problem, chosen))


def noise(chosen: Assignment) -> float:
    """Noise of independent errors adds up."""
    return sum(option.noise for option in chosen.values())


def conversions(problem: Problem, chosen: Assignment) -> set[tuple[str, Form, Form]]:
    """Every conversion the assignment needs, once."""
    written = {site.writes: chosen[site.key].writes for site in problem.sites}
    read = {(name, chosen[site.key].reads) for site in problem.sites for name in site.reads}
    read |= {(name, Form.FLOAT) for name in problem.pinned}
    needed = {(name, written.get(name, Form.FLOAT), form) for name, form in read}
    return {conversion for conversion in needed if conversion[1] != conversion[2]}


def readers(problem: Problem) -> dict[str, list[Site]]:
    """Sites by the tensor they read."""
    found: dict[str, list[Site]] = {}
    for site in problem.sites:
        for name in dict.fromkeys(site.reads):
            found.setdefault(name, []).append(site)
    return found


def chains(problem: Problem) -> Sequence[Sequence[Site]] | None:
    """The sites as chains in which each reads only what the one before it writes; None where some branch or join."""
    producers = {site.writes: site for site in problem.sites}
    by_tensor = readers(problem)
    if any(len(set(site.reads)) > 1 for site in problem.sites) or any(len(found) > 1 for found in by_tensor.values()):
        return None
    heads = [site for site in problem.sites if not any(name in producers for name in site.reads)]
    found: list[list[Site]] = []
    for head in heads:
        chain = [head]
        while behind := by_tensor.get(chain[-1].writes):
            chain.append(behind[0])
        found.append(chain)
    return found


def with_noise(problem: Problem, noise: Mapping[tuple[int, str], float]) -> Problem:
    """The problem with noise by site and option."""
    sites = (
        replace(site, options=tuple(replace(o, noise=noise.get((site.key, o.name), 0.0)) for o in site.options))
        for site in problem.sites
    )
    return replace(problem, sites=tuple(sites))
