"""Measured latencies on disk, by what was executed and who executed it; a run that was cut goes on where it ended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.ir.onnx_out import atomic, made

FORMAT = 3


def default_folder() -> Path:
    """`$EOPT_CACHE`, else `~/.cache/eopt`."""
    named = os.environ.get("EOPT_CACHE")
    return Path(named) if named else Path.home() / ".cache/eopt"


def _now() -> str:
    return datetime.now(UTC).isoformat("T", "seconds")


def _timing(latency_s: float, cv: float, repeats: int, calls: int) -> Timing:
    """A timing whose figures are some."""
    if not 0 < latency_s < inf or not 0 <= cv < inf:
        raise ValueError(f"{latency_s} s with a variation of {cv} is no measurement")
    return Timing(latency_s, cv, int(repeats), int(calls))


@dataclass(frozen=True)
class Store:
    """Measurements of one machine.

    Attributes:
        folder: where they are; made when something is kept.
        machine: whose they are: the name of its target and what its processor calls itself.
    """

    folder: Path
    machine: str
    now: Callable[[], str] = _now

    def find(self, workload: Workload, setup: Setup, version: str) -> Timing | None:
        """What was measured; None where nothing was, or where the file cannot be read as what it should be."""
        try:
            found = json.loads(self._path(workload, setup, version).read_text(encoding="utf-8"))
            return _timing(**found["timing"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def keep(self, workload: Workload, setup: Setup, version: str, timing: Timing) -> None:
        """Write a measurement; the file appears whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        document = {
            "name": workload.name,
            "machine": self.machine,
            "setup": asdict(setup),
            "version": version,
            "date": self.now(),
            "timing": asdict(timing),
        }
        path = self._path(workload, setup, version)
        made(path.parent)
        with atomic(path) as file:
            file.write(json.dumps(document, indent=1, sort_keys=True).encode())

    def _path(self, workload: Workload, setup: Setup, version: str) -> Path:
        identity: list[Any] = [FORMAT, workload.key, self.machine, asdict(setup), version]
        key = sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        return self.folder / "measurements" / key[:2] / f"{key}.json"
