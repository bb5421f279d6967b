"""A worker process seen from outside: prepared workloads that run over there."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eopt.backends.base import Array, Feed
from eopt.backends.harness.arrays import read_arrays, write_arrays
from eopt.backends.harness.base import Setup, Workload
from eopt.ir.errors import EoptError, InputError, UsageError

START_S, REQUEST_S = 180.0, 300.0  # importing a compiler takes seconds, compiling a network may take minutes
_TAIL = 2000  # characters of what a dead worker said


class WorkerDied(InputError):
    """The process ended or hung; what it was doing cannot be measured here."""


class Worker:
    """One process with one executor. Use it through `worker`."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.log = (folder / "log").open("w+", encoding="utf-8", errors="replace")
        threads = {} if not setup.threads else {"TVM_NUM_THREADS": str(setup.threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eopt.backends.harness.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "TVM_BIND_THREADS": "0", **threads},  # bound threads slow whatever runs beside them
        )
        assert self.process.stdout is not None
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        try:
            self.version = str(self.ask(asdict(setup), START_S)["version"])
        except BaseException:
            self.close()
            raise

    def prepare(self, workload: Workload, feed: Feed | None = None) -> RemotePrepared:
        """Compile a workload over there; without a feed its inputs are drawn with a fixed seed.

        Raises:
            InputError: the executor cannot run it, or died of it.
        """
        self.count += 1
        path = self.folder / f"{self.count}.onnx"
        path.write_bytes(workload.onnx)
        given = None if feed is None else self.folder / f"{self.count}.npz"
        if given is not None and feed is not None:
            write_arrays(given, feed)
        request = {
            "do": "prepare", "number": self.count, "path": str(path), "name": workload.name, "copies": workload.copies,
            "lone": workload.lone, "feed": given and str(given),
        }  # fmt: skip
        self.ask(request)
        path.unlink()
        return RemotePrepared(self, self.count)

    def ask(self, request: dict[str, Any], timeout_s: float = REQUEST_S) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            InputError: an error over there, by its message.
            WorkerDied: no answer.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._died("ended") from None
        if not self.selector.select(timeout_s):
            raise self._died(f"gave no answer in {timeout_s:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise self._died("ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _error(answer)
        return answer

    def _died(self, how: str) -> WorkerDied:
        self.process.kill()
        code = self.process.wait()
        self.log.seek(0)
        said = self.log.read()[-_TAIL:].strip().splitlines()
        return WorkerDied(f"the measuring process {how} (exit code {code}){': ' + said[-1][:300] if said else ''}")

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.selector.close()
        self.log.close()


class RemotePrepared:
    """A workload prepared in a worker; see `Prepared`."""

    def __init__(self, worker: Worker, number: int) -> None:
        self.worker, self.number = worker, number

    def run(self, calls: int) -> float:
        """See `Prepared.run`; the seconds are taken over there."""
        return float(self.worker.ask({"do": "run", "number": self.number, "calls": calls})["seconds"])

    def outputs(self) -> dict[str, Array]:
        """See `Prepared.outputs`."""
        path = self.worker.folder / f"{self.number}.out.npz"
        self.worker.ask({"do": "outputs", "number": self.number, "to": str(path)})
        return read_arrays(path)

    def drop(self) -> None:
        """Free it over there."""
        self.worker.ask({"do": "drop", "number": self.number})


@contextmanager
def worker(setup: Setup) -> Iterator[Worker]:
    """A worker process that ends with the block.

    Raises:
        UsageError: the executor cannot be measured here.
        WorkerDied: it does not start.
    """
    with TemporaryDirectory(prefix="eopt-") as folder:
        found = Worker(setup, Path(folder))
        try:
            yield found
        finally:
            found.close()


def _error(answer: dict[str, Any]) -> EoptError:
    kind = UsageError if answer.get("code") == UsageError.exit_code else InputError
    return kind(str(answer["error"]))
