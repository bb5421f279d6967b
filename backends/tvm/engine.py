"""TVM measures: a workload compiled for a target, in the schedule that was asked for, timed by TVM's own evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.base import Array, Feed
from eopt.backends.harness.base import FIXED, TUNED, UNTUNED, Prepared, Setup, Workload
from eopt.backends.harness.store import default_folder
from eopt.backends.tvm import place as places
from eopt.backends.tvm.lower import Lowered, lowered, on_gpu, target_of
from eopt.backends.tvm.place import Local, Place
from eopt.backends.tvm.require import reason, require
from eopt.backends.tvm.schedule import as_it_comes, by_rules
from eopt.backends.tvm.tune import Tuner
from eopt.ir.errors import InputError, UsageError

_AGREES = 1e-2  # of the largest value: schedules sum in another order, in float16 up to a thousand terms


class TvmEngine:
    """Compiles and runs workloads; see `Engine`.

    Args:
        setup: its `tvm` is the target, this machine's processor where it is empty.
        place: where the code runs; `None` for this process.
        folder: of the tuning database; `None` for the cache of eopt.

    Raises:
        UsageError: TVM is missing or another version, has no such target or device, or there is no such schedule.
        OutputError: the folder cannot be made.
    """

    def __init__(self, setup: Setup, place: Place | None = None, folder: Path | None = None) -> None:
        tvm = require(setup.threads)
        self.setup, self.version = setup, str(tvm.__version__)
        self.target = target_of(setup.tvm, setup.threads)
        self.place = place or Local(setup.device)
        if not self.place.device.exist:
            raise UsageError(f"executor tvm: there is no device {setup.device} that TVM can use")
        trials = _trials(setup.schedule)
        self.tuner = Tuner(self.target, trials, folder or default_folder() / "tvm") if trials else None

    def prepare(self, workload: Workload, feed: Feed) -> Prepared:
        """See `Engine.prepare`. A workload of one kernel is timed as that kernel, others as TVM's VM runs them."""
        model = lowered(workload, self.target)
        try:
            chosen = model.replaced({name: self._scheduled(kernel) for name, kernel in model.kernels.items()})
            return PreparedKernel(self, chosen, feed) if _is_kernel(chosen) else PreparedNetwork(self, chosen, feed)
        except Exception as error:  # TVM raises types of its own from every stage
            raise InputError(f"{workload.name}: TVM cannot compile or run it: {reason(error)}") from None

    def _scheduled(self, kernel: Any) -> Any:
        """The fastest of the schedules that the setup allows, each checked against the kernel as it comes."""
        plain = as_it_comes(kernel, self.target)
        other = self._other(kernel)
        if other is None:
            return plain
        timed = []
        for candidate in (plain, other):
            module = self.place.load(places.compiled(candidate, self.target))
            args = places.arguments(candidate, self.place)
            module["main"](*args)
            timed.append((places.seconds(module, args, self.place), candidate, args[-1].numpy()))
        (plain_s, _, expected), (other_s, _, given) = timed
        return other if other_s < plain_s and _agree(given, expected) else plain

    def _other(self, kernel: Any) -> Any | None:
        if self.tuner is not None:
            return self.tuner.best(kernel, self.place)
        if self.setup.schedule != FIXED or on_gpu(self.target):
            return None
        try:
            return by_rules(kernel)
        except Exception:  # the rules do not fit every kernel, and the schedule says which loop it minds
            return None


class PreparedKernel:
    """One kernel without TVM's VM around it."""

    def __init__(self, engine: TvmEngine, model: Lowered, feed: Feed) -> None:
        import tvm

        (call,) = model.calls()
        ((_, kernel),) = model.kernels.items()
        self.device, self.names = engine.place.device, model.outputs
        self.module = engine.place.load(places.compiled(kernel, engine.target))
        given = dict(zip(model.module["main"].params, model.inputs, strict=True))
        arrays = [feed[given[arg]] if arg in given else arg.value.numpy() for arg in call.args[1]]
        outputs = [places.empty(*each) for each in places.signature(kernel)[len(arrays) :]]
        self.args = [tvm.runtime.tensor(np.ascontiguousarray(each), self.device) for each in (*arrays, *outputs)]

    def run(self, calls: int) -> float:
        """See `Prepared.run`."""
        return calls * float(self.module.time_evaluator("main", self.device, number=calls, repeat=1)(*self.args).mean)

    def outputs(self) -> dict[str, Array]:
        """See `Prepared.outputs`."""
        self.module["main"](*self.args)
        found = self.args[len(self.args) - len(self.names) :]
        return {name: tensor.numpy() for name, tensor in zip(self.names, found, strict=True)}


class PreparedNetwork:
    """Several kernels as TVM's VM calls them, with inputs bound once."""

    def __init__(self, engine: TvmEngine, model: Lowered, feed: Feed) -> None:
        import tvm
        from tvm import relax

        compiled = tvm.compile(model.module, target=engine.target, relax_pipeline=relax.get_pipeline("default_build"))
        self.device, self.names = engine.place.device, model.outputs
        self.vm = relax.VirtualMachine(engine.place.load(compiled), self.device)
        args = [tvm.runtime.tensor(np.ascontiguousarray(feed[name]), self.device) for name in model.inputs]
        self.vm.save_function("main", "bound", *args)
        self.vm.set_input("main", *args)

    def run(self, calls: int) -> float:
        """See `Prepared.run`."""
        return calls * float(self.vm.time_evaluator("bound", self.device, number=calls, repeat=1)().mean)

    def outputs(self) -> dict[str, Array]:
        """See `Prepared.outputs`."""
        self.vm.invoke_stateful("main")
        found = self.vm.get_outputs("main")
        tensors = found if isinstance(found, tuple) else (found,)
        return {name: tensor.numpy() for name, tensor in zip(self.names, tensors, strict=True)}


def _is_kernel(model: Lowered) -> bool:
    """True where `main` is one call whose arguments are inputs or constants, and whose results are the outputs."""
    from tvm.ir.expr import GenericConst

    body = model.module["main"].body
    bindings = [binding for block in body.blocks for binding in block.bindings]
    if len(bindings) != 1 or not bindings[0].var.same_as(body.body):
        return False
    params = list(model.module["main"].params)
    return len(list(model.calls())) == 1 and all(
        isinstance(arg, GenericConst) or any(arg.same_as(param) for param in params)
        for arg in bindings[0].value.args[1]
    )


def _agree(given: Array, expected: Array) -> bool:
    given, expected = given.astype(np.float64), expected.astype(np.float64)
    return bool(np.allclose(given, expected, rtol=0, atol=_AGREES * float(np.abs(expected).max(initial=1e-30))))


def _trials(schedule: str) -> int:
    kind, _, number = schedule.partition(":")
    if kind in ("", UNTUNED, FIXED) and not number:
        return 0
    if kind == TUNED and number.isdecimal() and int(number) > 0:
        return int(number)
    raise UsageError(f"no schedule {schedule!r}; there are {UNTUNED}, {FIXED} and {TUNED}:TRIALS")
