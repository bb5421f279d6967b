"""From what users type (`--target`, `--executor`, `--batch`, `--bind`) to the situation that is priced."""

from __future__ import annotations

from collections.abc import Mapping

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.costmodel.tree import Situation, bindings_for
from eopt.ir.errors import UsageError
from eopt.ir.model import Model


def situation(
    model: Model, target: str | None, executor: str | None, batch: int | None, bind: Mapping[str, int]
) -> Situation | None:
    """The situation, or None without a target.

    Raises:
        UsageError: unknown target, executor or dim, or an executor without a target.
    """
    if target is None:
        if executor is not None:
            raise UsageError("--executor needs --target: a cost belongs to a target and an executor")
        return None
    hardware = targets.load(target)
    runs_it = executors.load(executor) if executor else executors.default_for(hardware)
    return Situation(hardware, runs_it, bindings_for(model, batch, bind))
