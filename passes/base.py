"""What a pass is: a frozen dataclass whose fields are its options, with declared order and a numeric contract."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.passes.contract import Contract, Exact, Verdict
from eopt.passes.spec import PassSpec, format_value

if TYPE_CHECKING:
    from eopt.backends.base import Runner
    from eopt.backends.data import Dataset
    from eopt.backends.executor import Executor
    from eopt.backends.target import Target
    from eopt.passes.gate import Gate
    from eopt.passes.rewrite import Rule


class Granularity(StrEnum):
    """What the cost gate decides on: each rewrite, each region, or the pass as a whole; or nothing at all."""

    REWRITE = "rewrite"
    REGION = "region"
    PASS = "pass"
    EXEMPT = "exempt"


@dataclass(frozen=True, eq=False)
class Context:
    """What a pass may use besides the model.

    Attributes:
        runner: runs models, for calibration and verification.
        data: calibration samples, or None.
        gate: decides on predicted joules; None applies everything.
        target: the hardware compiled for, or None.
        executor: who runs the result there, or None.
        check: what the pass's contract says of a model, on held-out samples (one that does not run breaks it); None
            where nothing is verified.
        progress: called with a label, the number done and the total.
    """

    runner: Runner
    data: Dataset | None = None
    gate: Gate | None = None
    target: Target | None = None
    executor: Executor | None = None
    check: Callable[[Model], Verdict] | None = None
    seed: int = 0
    progress: Callable[[str, int, int], None] = lambda label, done, total: None


@dataclass(frozen=True)
class Change:
    """One rewrite that was applied or refused.

    Attributes:
        rule: name of the rule.
        where: module path and operator it anchors at.
        saved_j: predicted joules saved per execution of the model; None without a target, or when undecided.
        reason: why it was refused, or '' when applied.
    """

    rule: str
    where: str
    saved_j: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Trial:
    """A model that was tried on the way to the accuracy asked for: a point of the frontier of loss against joules.

    Attributes:
        energy_j: predicted joules of an execution; None without a target.
        verdict: what the contract says of it.
        share: of the operators that could be, those in low precision.
        chosen: it is the outcome.
    """

    energy_j: float | None
    verdict: Verdict
    share: float
    chosen: bool = False

    @property
    def holds(self) -> bool:
        """It is accurate enough."""
        return self.verdict.holds


@dataclass(frozen=True)
class Outcome:
    """What a pass did; `trials` is empty where the first attempt was accurate enough."""

    model: Model
    applied: tuple[Change, ...] = ()
    refused: tuple[Change, ...] = ()
    notes: tuple[str, ...] = field(default=())
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Pass:
    """Base of every pass. Subclasses are frozen dataclasses; their fields are options in CLI, YAML and Python alike."""

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    conflicts: ClassVar[tuple[str, ...]] = ()
    granularity: ClassVar[Granularity] = Granularity.EXEMPT
    needs_data: ClassVar[bool] = False

    @property
    def asks_for_data(self) -> bool:
        """True where these options cannot do without calibration samples."""
        return self.needs_data

    @property
    def contract(self) -> Contract:
        """How far the rewritten model may be from the original."""
        return Exact()

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """The rewrite rules it applies, for `eopt why`; none for passes that work otherwise."""
        return ()

    def run(self, model: Model, context: Context) -> Outcome:
        """Rewrite the model.

        Raises:
            EoptError: the pass cannot be applied to this model.
        """
        raise TypeError(f"pass {self.name!r} does not define run()")

    def __str__(self) -> str:
        options = [
            f"{option.name}={format_value(value)}"
            for option in fields(self)
            if (value := getattr(self, option.name)) != option.default
        ]
        return self.name + (f"{{{','.join(options)}}}" if options else "")

    @classmethod
    def from_spec(cls, spec: PassSpec) -> Self:
        """Build the pass from its options.

        Raises:
            UsageError: an unknown option, or a value of the wrong type.
        """
        hints = typing.get_type_hints(cls)
        known = {option.name for option in fields(cls)}
        for key in spec.options:
            if key not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise UsageError(f"pass {cls.name!r} has no option {key!r}; its options: {listed}")
        values = {key: _coerced(f"{cls.name}.{key}", value, hints[key]) for key, value in spec.options.items()}
        return cls(**values)


def _coerced(where: str, value: Any, hint: Any) -> Any:
    """The value as the annotated type; a lone item is accepted for a tuple, an integer for a float."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return None if value is None else _coerced(where, value, _without_none(hint))
    if typing.get_origin(hint) is tuple:
        items: Sequence[Any] = value if isinstance(value, list | tuple) else (value,)
        return tuple(_coerced(where, item, typing.get_args(hint)[0]) for item in items)
    if hint is float and not isinstance(value, bool):
        return _number(where, value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(where, value, hint)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"passes: {where}={value!r} should be of type {hint.__name__}")
    return value


def _number(where: str, value: Any) -> float:
    """YAML 1.1 reads `1e-3` as text, so text that is a number counts as one."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UsageError(f"passes: {where}={value!r} should be of type float") from None


def _without_none(hint: Any) -> Any:
    return next(item for item in typing.get_args(hint) if item is not type(None))


def _member(where: str, value: Any, hint: type[StrEnum]) -> StrEnum:
    try:
        return hint(str(value))
    except ValueError:
        raise UsageError(f"passes: {where}={value!r}; choose from {', '.join(hint)}") from None
