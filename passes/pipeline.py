"""A pipeline of passes, and the manager that orders them, runs them and holds each to its contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import yaml

from eopt.backends.base import Array, Feed
from eopt.ir.errors import InputError, UsageError
from eopt.ir.model import Model
from eopt.ir.verify import verify
from eopt.passes import blame, registry
from eopt.passes.base import Context, Outcome, Pass
from eopt.passes.contract import Contract, Exact, Verdict, loosest
from eopt.passes.spec import PassSpec, parse


@dataclass(frozen=True, init=False)
class Pipeline:
    """Passes in the order they run; `Pipeline.parse`, `Pipeline.from_yaml` and `Pipeline(*passes)` give equal ones."""

    passes: tuple[Pass, ...]

    def __init__(self, *passes: Pass, keep_order: bool = False) -> None:
        _check_conflicts(passes)
        object.__setattr__(self, "passes", passes if keep_order else _ordered(passes))

    @classmethod
    def parse(cls, text: str, *, keep_order: bool = False) -> Self:
        """Read the CLI spelling, `simplify,fuse,quant{weight=int8}`.

        Raises:
            UsageError: an unknown pass or option, or passes that exclude each other.
        """
        return cls(*map(_build, parse(text)), keep_order=keep_order)

    @classmethod
    def from_yaml(cls, text: str, *, keep_order: bool = False) -> Self:
        """Read a YAML list of names and of `name: {option: value}` mappings, at the top or under `passes:`.

        Raises:
            UsageError: as `parse`, or no such list.
        """
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"pipeline: not YAML: {str(error).splitlines()[0]}") from None
        entries = document.get("passes") if isinstance(document, dict) else document
        if not isinstance(entries, list):
            raise UsageError("pipeline: expected a YAML list of passes")
        return cls(*(_build(_yaml_spec(entry)) for entry in entries), keep_order=keep_order)

    def __str__(self) -> str:
        return ",".join(map(str, self.passes))

    def run(self, model: Model, context: Context, verification: Verification | None = None) -> Compiled:
        """Apply the passes in order; one that breaks its contract is rolled back and the run goes on.

        Raises:
            EoptError: a pass cannot run on this model, or its result is no valid model.
        """
        steps: list[Step] = []
        current, kept = model, list[Contract]()
        for item in self.passes:
            step = _step(item, model, current, context, verification, kept)
            steps.append(step)
            if step.kept:
                current = step.outcome.model
                kept.append(item.contract)
        return Compiled(model, current, tuple(steps))


@dataclass(frozen=True, eq=False)
class Verification:
    """What every pass is checked on.

    Attributes:
        batches: inputs, the same for the original and the rewritten model.
        override: a contract that replaces those of passes that are not exact (from `--metric` and `--max-loss`).
    """

    batches: Sequence[Feed]
    override: Contract | None = None


@dataclass(frozen=True)
class Step:
    """One pass of a run: what it did, whether its contract held, and the region that broke it if not."""

    spec: str
    outcome: Outcome
    verdict: Verdict | None = None
    broken_at: str = ""

    @property
    def kept(self) -> bool:
        """False when the pass was rolled back."""
        return self.verdict is None or self.verdict.holds


@dataclass(frozen=True)
class Compiled:
    """The result of a pipeline."""

    original: Model
    model: Model
    steps: tuple[Step, ...] = field(default=())

    @property
    def violated(self) -> tuple[Step, ...]:
        """Steps that were rolled back."""
        return tuple(step for step in self.steps if not step.kept)


def _step(
    item: Pass,
    original: Model,
    current: Model,
    context: Context,
    verification: Verification | None,
    kept: Sequence[Contract],
) -> Step:
    if item.asks_for_data and context.data is None:
        raise UsageError(f"pass {item.name!r} needs calibration samples; give them with --data")
    check = None if verification is None else partial(_checked, item, original, context, verification, kept)
    outcome = item.run(current, replace(context, check=check and partial(_judged, check)))
    outcome = replace(outcome, model=outcome.model.swept())
    verify(outcome.model)
    if verification is None or check is None or outcome.model is current:
        return Step(str(item), outcome)
    try:
        verdict = check(outcome.model)
    except InputError as error:  # the original runs: what the pass made does not, which no contract allows
        return Step(str(item), outcome, _BROKEN, f"the result does not run: {error}")
    broken = "" if verdict.holds else blame.first_broken(original, outcome.model, context, verification.batches)
    return Step(str(item), outcome, verdict, broken)


_BROKEN = Verdict(False, -math.inf, 0.0, "dB")


def _judged(check: Callable[[Model], Verdict], model: Model) -> Verdict:
    """What a pass is told of a model on its way: one that does not run breaks every contract."""
    try:
        return check(model)
    except InputError:
        return _BROKEN


def _checked(
    item: Pass, original: Model, context: Context, verification: Verification, kept: Sequence[Contract], model: Model
) -> Verdict:
    """What the contracts of this pass and of those before it say of a model."""
    contract = loosest([*kept, item.contract])
    if verification.override is not None and not isinstance(contract, Exact):
        contract = verification.override
    reference = original.get(_reference, context, verification)
    return contract.check(reference, _outputs(model, context, verification))


def _reference(model: Model, context: Context, verification: Verification) -> list[dict[str, Array]]:
    """Outputs of the original: computed once for all passes."""
    return _outputs(model, context, verification)


def _outputs(model: Model, context: Context, verification: Verification) -> list[dict[str, Array]]:
    context.progress("verify", 0, 1)
    return list(context.runner.run(model, verification.batches))


def _build(spec: PassSpec) -> Pass:
    return registry.load(spec.name).from_spec(spec)


def _yaml_spec(entry: Any) -> PassSpec:
    if isinstance(entry, str):
        return PassSpec(entry)
    if isinstance(entry, dict) and len(entry) == 1:
        name, options = next(iter(entry.items()))
        if isinstance(name, str) and (options is None or isinstance(options, Mapping)):
            return PassSpec(name, dict(options or {}))
    raise UsageError(f"pipeline: {entry!r} is neither a pass name nor a mapping of one name to its options")


def _check_conflicts(passes: Sequence[Pass]) -> None:
    present = {item.name for item in passes}
    for item in passes:
        for other in set(item.conflicts) & present:
            raise UsageError(f"passes {item.name!r} and {other!r} exclude each other; drop one")


def _ordered(passes: Sequence[Pass]) -> tuple[Pass, ...]:
    """A stable order in which each pass comes after those it declares."""
    waiting, ordered = list(passes), list[Pass]()
    while waiting:
        names = {item.name for item in waiting}
        ready: Callable[[Pass], bool] = lambda item: not (set(item.after) - {item.name}) & names  # noqa: B023
        following = next(filter(ready, waiting), None)
        if following is None:
            raise UsageError(f"passes {', '.join(sorted(names))} each want to come after the other")
        waiting.remove(following)
        ordered.append(following)
    return tuple(ordered)
