"""Measure many workloads on this machine: in rounds, so that drift hits all alike, and each only once ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product

from eopt.backends.base import Unknown
from eopt.backends.harness import timing
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.harness.process import RemotePrepared, Worker, WorkerDied, worker
from eopt.backends.harness.store import Store
from eopt.ir.errors import InputError

ROUNDS = timing.REPEATS
SERIES = 3  # of rounds; after the first only what was noisy is repeated
BATCH, BATCH_BYTES = 32, 1 << 30  # workloads that are held at once
WARM = 1  # executions before each window: the others have emptied the caches meanwhile

Progress = Callable[[str, int, int], None]
Result = Timing | Unknown


def measure(
    workloads: Sequence[Workload],
    setup: Setup,
    store: Store,
    progress: Progress = lambda label, done, total: None,
    window_s: float = timing.WINDOW_S,
) -> list[Result]:
    """The latency of each workload, in order; what fails is Unknown with the reason, and the others go on.

    Raises:
        UsageError: the executor cannot be measured here.
        WorkerDied: it does not even start.
        OutputError: a measurement cannot be kept.
    """
    version = versions(setup)
    found, left = known(workloads, setup, store, version)
    done = len(workloads) - len(left)
    for batch in _batches(left):
        progress(f"measuring ({setup.executor})", done, len(workloads))
        for workload, result in _measured(batch, setup, window_s).items():
            found[workload.key] = result
            if isinstance(result, Timing):
                store.keep(workload, setup, version, result)
        done += len(batch)
    progress(f"measuring ({setup.executor})", done, len(workloads))
    return [found[workload.key] for workload in workloads]


def known(
    workloads: Sequence[Workload], setup: Setup, store: Store, version: str
) -> tuple[dict[str, Result], list[Workload]]:
    """What was measured before, by key, and what is left, each once."""
    kept = {workload.key: store.find(workload, setup, version) for workload in workloads}
    left = {workload.key: workload for workload in workloads if kept[workload.key] is None}
    return {key: timing for key, timing in kept.items() if timing is not None}, list(left.values())


def versions(setup: Setup) -> str:
    """The version of an executor's library, which is part of what identifies a measurement.

    Raises:
        UsageError: it is not installed.
    """
    from importlib import metadata

    from eopt.backends.harness.engines import LIBRARY, unavailable

    for name in LIBRARY.get(setup.executor, ()):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise unavailable(setup.executor)


def _batches(workloads: Sequence[Workload]) -> Iterator[list[Workload]]:
    batch: list[Workload] = []
    for workload in workloads:
        held = sum(len(other.onnx) for other in batch)
        if batch and (len(batch) == BATCH or held + len(workload.onnx) > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(workload)
    if batch:
        yield batch


def _measured(batch: list[Workload], setup: Setup, window_s: float) -> dict[Workload, Result]:
    """A batch in one process; who kills it is left out, and the others start again in a new one."""
    fatal: dict[Workload, Result] = {}
    while True:
        alive = [workload for workload in batch if workload not in fatal]
        if not alive:
            return fatal
        suspect = _Suspect()
        try:
            with worker(setup) as process:
                return {**fatal, **_in_rounds(process, alive, window_s, suspect)}
        except WorkerDied as error:
            if suspect.workload is None:
                raise
            fatal[suspect.workload] = Unknown((f"{suspect.workload.name}: {error}",))


class _Suspect:
    """Which workload the process was busy with."""

    workload: Workload | None = None


def _in_rounds(process: Worker, batch: list[Workload], window_s: float, suspect: _Suspect) -> dict[Workload, Result]:
    failed: dict[Workload, Result] = {}
    prepared: dict[Workload, tuple[RemotePrepared, int]] = {}
    for suspect.workload in batch:
        with _noted(suspect.workload, failed):
            one = process.prepare(suspect.workload)
            prepared[suspect.workload] = one, timing.calibrated_calls(one, window_s)
    seconds: dict[Workload, list[float]] = {workload: [] for workload in prepared}
    timings: dict[Workload, Timing] = {}
    for _ in range(SERIES):
        noisy = [workload for workload in prepared if workload not in timings or timings[workload].noisy]
        for _, suspect.workload in product(range(ROUNDS), noisy):
            if suspect.workload in failed:
                continue
            with _noted(suspect.workload, failed):
                one, calls = prepared[suspect.workload]
                one.run(WARM)
                seconds[suspect.workload].append(one.run(calls) / calls / suspect.workload.copies)
        left = [workload for workload in noisy if workload not in failed]
        timings.update({workload: timing.summarised(seconds[workload], prepared[workload][1]) for workload in left})
    return {**timings, **failed}


@contextmanager
def _noted(workload: Workload, failed: dict[Workload, Result]) -> Iterator[None]:
    """What an executor refuses is written down; a process that died is for somebody else."""
    try:
        yield
    except WorkerDied:
        raise
    except InputError as error:
        said = str(error)
        failed[workload] = Unknown((said if said.startswith(workload.name) else f"{workload.name}: {said}",))
