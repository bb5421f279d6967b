"""MetaSchedule on one device, one kernel at a time, with everything it found kept on disk."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from eopt.backends.tvm import place as places
from eopt.backends.tvm.place import Place
from eopt.backends.tvm.require import intrinsics, reason
from eopt.ir.errors import OutputError

SEED = 1
PER_ROUND = 16  # trials between two updates of the search's own model
_LOCK = Lock()  # MetaSchedule's databases are not for several threads


class Tuner:
    """Searches schedules and remembers them.

    Args:
        target: of TVM; on a CPU with `num-cores`.
        trials: candidates measured for each kernel.
        folder: what was found is kept below it, apart for each target and number of trials.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, target: Any, trials: int, folder: Path) -> None:
        self.target, self.trials = target, trials
        self.folder = folder / sha256(f"{target}\0{trials}".encode()).hexdigest()[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be created ({error.strerror})") from None

    def best(self, function: Any, place: Place) -> Any | None:
        """The fastest schedule of a kernel that was found, `None` where the search found none.

        A kernel that was searched before, by whatever process, is not searched again; a search that was cut is. The
        seed is fixed, but what is tried next depends on what was measured.
        """
        import tvm
        from tvm.s_tir import meta_schedule as ms

        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        with _LOCK:
            known = ms.database.JSONDatabase(work_dir=str(self.folder))
            searched = known.has_workload(module)
        found = None if searched else self._search(module, place)
        with _LOCK:
            known = ms.database.JSONDatabase(work_dir=str(self.folder))
            known.commit_workload(module)
            if found is not None:
                found.dump_pruned(known)
            schedule = known.query_schedule(module, self.target, workload_name="main")
        return None if schedule is None else schedule.mod["main"].without_attr("global_symbol")

    def _search(self, module: Any, place: Place) -> Any:
        from tvm.s_tir import meta_schedule as ms

        intrinsics()
        builder, runner = _in_process(place)
        database = ms.database.MemoryDatabase()
        context = ms.TuneContext(
            mod=module,
            target=self.target,
            space_generator="post-order-apply",
            search_strategy="evolutionary",
            task_name="main",
            rand_state=SEED,
            num_threads=1,
            logger=_quiet(),
        )
        ms.tune_tasks(
            tasks=[context.clone()],
            task_weights=[1.0],
            work_dir="",  # of a database, which is given
            max_trials_global=self.trials,
            num_trials_per_iter=min(self.trials, PER_ROUND),
            builder=builder,
            runner=runner,
            database=database,
            measure_callbacks=[ms.measure_callback.AddToDatabase(), ms.measure_callback.UpdateCostModel()],
        )
        return database


def _quiet() -> logging.Logger:
    """MetaSchedule's logger, told to mention errors only: it reports every trial, on standard output."""
    logger = logging.getLogger("tvm.s_tir.meta_schedule")
    logger.setLevel(logging.ERROR)
    return logger


def _in_process(place: Place) -> tuple[Any, Any]:
    """A builder and a runner of this process: no start-up of theirs, and no files between the two."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
    from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

    built: list[Any] = []

    @derived_object
    class Builder(PyBuilder):  # type: ignore[misc]
        def build(self, build_inputs: Any) -> Any:
            return [_build(each) for each in build_inputs]

    @derived_object
    class Future(PyRunnerFuture):  # type: ignore[misc]
        def __init__(self, result: Any) -> None:
            super().__init__()
            self.found = result

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return self.found

    @derived_object
    class Runner(PyRunner):  # type: ignore[misc]
        def run(self, runner_inputs: Any) -> Any:
            return [Future(_run(each)) for each in runner_inputs]

    def _build(each: Any) -> Any:
        try:
            built.append((places.compiled(each.mod["main"], each.target), each.mod["main"]))
        except Exception as error:  # a candidate that does not compile is one the search does without
            return BuilderResult(None, reason(error))
        return BuilderResult(str(len(built) - 1), None)

    def _run(each: Any) -> Any:
        executable, function = built[int(each.artifact_path)]
        built[int(each.artifact_path)] = None
        try:
            taken_s = places.seconds(place.load(executable), places.arguments(function, place), place)
        except Exception as error:  # as above
            return RunnerResult(None, reason(error))
        return RunnerResult([taken_s], None)

    return Builder(), Runner()
