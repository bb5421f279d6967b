"""Measure on many devices through TVM's RPC tracker: work moves on from a device that dies, and nothing is lost.

TVM RPC is remote code execution by design, see `Tracker`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from time import monotonic

from eopt.backends.base import Feed, Unknown
from eopt.backends.harness import timing
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.tvm import peer
from eopt.backends.tvm.engine import TvmEngine
from eopt.backends.tvm.lower import target_of
from eopt.backends.tvm.place import Remote
from eopt.backends.tvm.require import reason, require
from eopt.backends.tvm.tracker import Address, Lease, Tracker, loopback
from eopt.ir.errors import InputError

MOST_ATTEMPTS = 3
JOB_S, WAIT_S, POLL_S = 300.0, 60.0, 0.2
_GRACE_S = 10.0  # a server ends a session by itself; one that is frozen does not


@dataclass(frozen=True)
class Placed:
    """A timing and the server, host and port, that gave it: devices of one kind are not equally fast."""

    timing: Timing
    server: Address


Result = Placed | Unknown
Feeds = Callable[[Workload], Feed]


def measure(
    workloads: Sequence[Workload],
    setup: Setup,
    tracker: Address,
    key: str,
    feed: Feeds,
    folder: Path | None = None,
    trust_network: bool = False,
    job_s: float = JOB_S,
    wait_s: float = WAIT_S,
) -> Iterator[tuple[Workload, Result]]:
    """Measure every workload on some server of a key, and yield each result as it comes.

    Code is compiled here; each job has a session of its own, and there are as many jobs at a time as servers are
    free. A job whose device dies or hangs is tried again elsewhere, up to three times, then it is Unknown. A server
    that is not what the target says is left out, and named where that leaves nothing.

    Args:
        tracker: host and port.
        key: the kind of device, as servers registered it.
        feed: the inputs of a workload.
        folder: of the tuning database.
        trust_network: allow hosts that are not loopback.
        job_s: longest time of one job in seconds, tuning included.
        wait_s: how long to wait while no server is free, in seconds.

    Raises:
        InputError: no tracker there, no server of this key, none free in time, or a host that is not loopback.
        UsageError: TVM is missing, or refuses the target or the schedule.
    """
    require(setup.threads)
    target_of(setup.tvm, setup.threads)  # refused now rather than by every job
    with Tracker(tracker, trust_network) as found:
        if not found.servers(key):
            raise InputError(f"{found.name}: no server has key {key!r}; there are {', '.join(found.keys()) or 'none'}")
        run = _Run(found, key, _Jobs(setup, feed, folder, job_s), wait_s, deque(map(_Job, workloads)))
        yield from run.results()


@dataclass
class _Job:
    workload: Workload
    attempts: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Liar:
    """A server that is not what it should be."""

    why: str


@dataclass(frozen=True)
class _Broken:
    """A job that did not end, for reasons that may be the device's."""

    why: str


Outcome = Timing | _Liar | _Broken


@dataclass(frozen=True)
class _Jobs:
    """How one job is done on one server; runs in a thread, which a frozen server may keep for ever."""

    setup: Setup
    feed: Feeds
    folder: Path | None
    job_s: float
    trusted: set[Address] = field(default_factory=set)

    def do(self, workload: Workload, lease: Lease) -> Outcome:
        from tvm import rpc

        try:
            session = rpc.connect(*lease.server, lease.key, session_timeout=self.job_s)
            place = Remote(session, self.setup.device)
            engine = TvmEngine(self.setup, place, self.folder)
            if self.setup.threads and self.setup.device == "cpu":
                session.get_function("runtime.config_threadpool")(0, self.setup.threads)
            if lease.server not in self.trusted:
                said = peer.claims(session, engine.target)
                lie = peer.contradiction(said, engine.target) or peer.miscounts(place, engine.target)
                if lie:
                    return _Liar(lie)
                self.trusted.add(lease.server)
            return timing.time(engine.prepare(workload, self.feed(workload)), workload.copies)
        except Exception as error:  # of the kernel, the device or the connection; whoever asks tells them apart
            return _Broken(reason(error))


@dataclass
class _Running:
    job: _Job
    lease: Lease
    overdue_at_s: float


class _Run:
    """The jobs of one run: waiting, running, done."""

    def __init__(self, tracker: Tracker, key: str, jobs: _Jobs, wait_s: float, waiting: deque[_Job]) -> None:
        self.tracker, self.key, self.jobs, self.wait_s, self.waiting = tracker, key, jobs, wait_s, waiting
        self.running: dict[int, _Running] = {}
        self.done: Queue[tuple[int, Outcome]] = Queue()
        self.left_out: dict[Address, str] = {}
        self.started = 0
        self.moved_s = monotonic()

    def results(self) -> Iterator[tuple[Workload, Result]]:
        while self.waiting or self.running:
            over = self._start()
            if over is not None and not self.running:
                yield from ((job.workload, Unknown((*job.errors, over))) for job in self.waiting)
                return
            self._expire()
            try:
                number, outcome = self.done.get(timeout=POLL_S)
            except Empty:
                continue
            running = self.running.pop(number, None)
            if running is None:  # given up before
                continue
            self.moved_s = monotonic()
            result = self._judged(running, outcome)
            if result is not None:
                yield running.job.workload, result

    def _start(self) -> str | None:
        """Start what can be started; why nothing ever will, where that is so."""
        try:
            while self.waiting and (lease := self._lease()) is not None:
                self._launch(self.waiting.popleft(), lease)
            alive = self.tracker.servers(self.key) - self.left_out.keys()
        except InputError as error:
            return str(error)
        if not alive:
            lies = [f"{host}:{port} was left out: {why}" for (host, port), why in self.left_out.items()]
            return "; ".join([f"{self.tracker.name}: no server with key {self.key!r} is left", *lies])
        if self.running or monotonic() - self.moved_s < self.wait_s:
            return None
        if not self.started:
            raise InputError(f"{self.tracker.name}: no server with key {self.key!r} was free in {self.wait_s:.0f} s")
        return f"{self.tracker.name}: no server with key {self.key!r} was free in {self.wait_s:.0f} s"

    def _lease(self) -> Lease | None:
        """A free server of those that may be used; the lease of another is not taken up and comes to nothing."""
        while (lease := self.tracker.lease(self.key)) is not None:
            if not (self.tracker.trust_network or loopback(lease.server[0])):
                self.left_out[lease.server] = "not on loopback, and the network is not trusted"
            if lease.server not in self.left_out:
                return lease
        return None

    def _launch(self, job: _Job, lease: Lease) -> None:
        self.started += 1
        number = self.started
        self.running[number] = _Running(job, lease, monotonic() + self.jobs.job_s + _GRACE_S)

        def work() -> None:
            self.done.put((number, self.jobs.do(job.workload, lease)))

        Thread(target=work, daemon=True, name=f"eopt-rpc-{number}").start()

    def _expire(self) -> None:
        """Give up what takes too long; its thread ends with the process, and what it still says is ignored."""
        for number, running in list(self.running.items()):
            if monotonic() > running.overdue_at_s:
                self.done.put((number, _Broken(f"no answer in {self.jobs.job_s:.0f} s")))

    def _judged(self, running: _Running, outcome: Outcome) -> Result | None:
        """A result, or `None` where the job waits for another device."""
        job, server = running.job, running.lease.server
        if isinstance(outcome, _Liar):
            self.left_out[server] = outcome.why
        elif isinstance(outcome, Timing):
            if server not in self.left_out:  # it may have been leased once more before its lie was known
                return Placed(outcome, server)
        else:
            job.attempts += 1
            job.errors.append(f"{server[0]}:{server[1]}: {outcome.why}")
        if job.attempts >= MOST_ATTEMPTS:
            return Unknown((f"{job.workload.name}: given up after {MOST_ATTEMPTS} attempts", *job.errors))
        self.waiting.append(job)
        return None
