"""The cost gate: a rewrite is kept only if the whole tree is predicted to use fewer joules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from eopt.ir.model import Model


class Compared(Protocol):
    """A paired comparison of two models on one (target, executor); see `eopt.costmodel.tree.compare`."""

    @property
    def before_j(self) -> float: ...

    @property
    def after_j(self) -> float: ...

    @property
    def undecided(self) -> tuple[str, ...]:
        """Operators among the changed ones whose cost is unknown."""
        ...


@dataclass(frozen=True)
class Decision:
    """`reason` is '' when the rewrite is accepted; `saved_j` is None when undecided."""

    saved_j: float | None
    reason: str = ""


@dataclass(frozen=True)
class Gate:
    """Decides on the paired difference of the whole tree.

    Attributes:
        compare: prices both trees in the same situation.
        kernels: joules, by uid of every operator, of the kernel that it runs in; what is free or unknown is left out.
        min_gain: least share of the model's joules a rewrite must save; negative for one asked for in itself, which may
            cost as much.
    """

    compare: Callable[[Model, Model], Compared]
    kernels: Callable[[Model], Mapping[int, float]] = lambda model: {}
    min_gain: float = 1e-5

    def decide(self, before: Model, after: Model) -> Decision:
        """Accept, refuse, or leave undecided (which is not applied)."""
        compared = self.compare(before, after)
        if compared.undecided:
            return Decision(None, f"undecided: the cost of {', '.join(compared.undecided[:3])} is unknown")
        saved_j = compared.before_j - compared.after_j
        if saved_j >= self.min_gain * compared.before_j:
            return Decision(saved_j)
        worse = saved_j < 0
        return Decision(
            saved_j, "predicted to use more energy" if worse else "no predicted gain on this target and executor"
        )
