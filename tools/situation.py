"""From what users type (`--target`, `--clock`, `--executor`, `--batch`, …) to the situation that is priced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.backends import throttle
from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel import calibration, registry, training
from eopt.costmodel.learned import current
from eopt.costmodel.query import CostModel
from eopt.costmodel.training import FORWARD, TRAINING
from eopt.costmodel.tree import Situation, bindings_for
from eopt.ir.errors import UsageError
from eopt.ir.model import Model


class Options(TypedDict, total=False):
    """How a model is run; what is left out is as `unbound` has it.

    Attributes:
        executor: name of who runs it, by default the target's, and torch where a model is trained.
        clock_mhz, power_cap_w: clock in MHz that is held, and power limit in W.
        graph: kernels are captured once and replayed, not launched one by one by the host.
        phase: `forward`, or `training`: a step with backward pass and update.
        optimizer: of that step, `adamw` or `sgd`.
        cost_model: one, the name of an installed one, or a folder with an artefact; that of this release by default.
    """

    executor: str | None
    clock_mhz: float | None
    power_cap_w: float | None
    graph: bool
    phase: str
    optimizer: str
    cost_model: CostModel | str | None


def situation(
    model: Model,
    target: str | None,
    executor: str | None,
    batch: int | None,
    bind: Mapping[str, int],
    clock_mhz: float | None = None,
    power_cap_w: float | None = None,
) -> Situation | None:
    """The situation, or None without a target.

    Raises:
        UsageError: unknown target, executor or dim, a clock or power the target does not have, or one of these without
            a target.
    """
    if target is not None:
        runs_on = hardware(target, executor, clock_mhz, power_cap_w)
        return Situation(*runs_on, bindings_for(model, batch, bind), cost_model_of(None, *runs_on))
    _refuse_without_target(executor, clock_mhz, power_cap_w)
    return None


def _refuse_without_target(executor: str | None, clock_mhz: float | None, power_cap_w: float | None) -> None:
    for option, value in (("--executor", executor), ("--clock", clock_mhz), ("--power-cap", power_cap_w)):
        if value is not None:
            raise UsageError(f"{option} needs --target: a cost belongs to a target and an executor")


def unbound(
    target: str | None,
    executor: str | None = None,
    clock_mhz: float | None = None,
    power_cap_w: float | None = None,
    *,
    graph: bool = False,
    phase: str = FORWARD,
    optimizer: str = training.DEFAULT_OPTIMIZER,
    cost_model: CostModel | str | None = None,
) -> Situation:
    """A situation without extents; arguments as of `Options`.

    Raises:
        UsageError: as of `hardware`; no target, or no such phase, optimiser or cost model.
        InputError: the folder holds no cost model, or the installed one fails.
    """
    if target is None:
        _refuse_without_target(executor, clock_mhz, power_cap_w)
        raise UsageError("a prediction needs a target; give --target NAME (eopt targets list)")
    if phase not in (FORWARD, TRAINING):
        raise UsageError(f"no phase {phase!r}; known are {FORWARD}, {TRAINING}")
    training.optimizer(optimizer)
    runs_on = hardware(target, executor, clock_mhz, power_cap_w, graph=graph, phase=phase)
    return Situation(*runs_on, cost_model=cost_model_of(cost_model, *runs_on), phase=phase, optimizer=optimizer)


def cost_model_of(named: CostModel | str | None, target: Target, executor: Executor) -> CostModel:
    """A cost model by name or folder; where none is named that of this release, corrected by a calibration of the
    target and executor if there is one.

    Raises:
        UsageError: no such cost model.
        InputError: the folder holds none, the installed one cannot be made, or the calibration is damaged.
    """
    if named is not None:
        return registry.load(named) if isinstance(named, str) else named
    found = calibration.find(target, executor)
    return current() if found is None else found.apply(current(), target, executor)


def hardware(
    target: str,
    executor: str | None,
    clock_mhz: float | None = None,
    power_cap_w: float | None = None,
    *,
    graph: bool = False,
    phase: str = FORWARD,
) -> tuple[Target, Executor]:
    """A target at a clock in MHz and under a power cap in W, where given, and who runs models there.

    Args:
        graph: kernels are captured once and replayed.
        phase: `training` asks for an executor that trains; torch where none is named.

    Raises:
        UsageError: no such target or executor, a clock or power it does not have, or an executor that does not capture
            or train.
    """
    clock_hz = None if clock_mhz is None else clock_mhz * 1e6
    found = throttle.at(targets.load(target), clock_hz, power_cap_w)
    runs_it = executors.load(executor) if executor else _default(found, phase)
    if phase == TRAINING and not runs_it.trains:
        able = ", ".join(name for name in executors.names() if executors.load(name).trains)
        raise UsageError(f"executor {runs_it.name} does not train; {able} do")
    if not graph:
        return found, runs_it
    if found.kind != "gpu" and found.vendor != "nvidia":
        raise UsageError(f"--graph: kernels are captured on GPUs only, and {found.name} is none")
    return found, runs_it.in_graph()


def _default(target: Target, phase: str) -> Executor:
    return executors.load("torch") if phase == TRAINING else executors.default_for(target)
