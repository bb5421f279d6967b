"""From what users type (`--target`, `--clock`, `--executor`, `--batch`, …) to the situation that is priced."""

from __future__ import annotations

from collections.abc import Mapping

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.backends import throttle
from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel.tree import Situation, bindings_for
from eopt.ir.errors import UsageError
from eopt.ir.model import Model


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
        return Situation(*hardware(target, executor, clock_mhz, power_cap_w), bindings_for(model, batch, bind))
    for option, value in (("--executor", executor), ("--clock", clock_mhz), ("--power-cap", power_cap_w)):
        if value is not None:
            raise UsageError(f"{option} needs --target: a cost belongs to a target and an executor")
    return None


def hardware(
    target: str, executor: str | None, clock_mhz: float | None = None, power_cap_w: float | None = None
) -> tuple[Target, Executor]:
    """A target at a clock in MHz and under a power cap in W, where given, and who runs models there.

    Raises:
        UsageError: no such target or executor, or a clock or power it does not have.
    """
    clock_hz = None if clock_mhz is None else clock_mhz * 1e6
    found = throttle.at(targets.load(target), clock_hz, power_cap_w)
    return found, executors.load(executor) if executor else executors.default_for(found)
