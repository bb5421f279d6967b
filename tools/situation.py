"""From what users type (`--target`, `--executor`, `--batch`, `--bind`) to the situation that is priced."""

from __future__ import annotations

from collections.abc import Mapping

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.backends.executor import Executor
from eopt.backends.target import Target
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
    return Situation(*hardware(target, executor), bindings_for(model, batch, bind))


def hardware(target: str, executor: str | None) -> tuple[Target, Executor]:
    """A target, and who runs models there.

    Raises:
        UsageError: no such target or executor.
    """
    found = targets.load(target)
    return found, executors.load(executor) if executor else executors.default_for(found)
