"""What is measured, by whom, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

from eopt.backends.base import Array, Feed

UNTUNED, FIXED, TUNED = "untuned", "fixed", "tuned"
"""Schedules of a compiling executor: as it comes, by rules, or `tuned:N` searched with N trials."""


@dataclass(frozen=True)
class Workload:
    """A small model: an operator, a fused group, or a whole network.

    Attributes:
        name: what it is, for people.
        onnx: the encoded `ModelProto`, with its weights inside and no symbolic extents.
        copies: how many independent copies of the operator it holds; figures are of one.
        lone: it was cut out of models, or made to be like what is; False for a network that stands for itself.
    """

    name: str
    onnx: bytes
    copies: int = 1
    lone: bool = True

    @property
    def key(self) -> str:
        """SHA-256 of what is executed; the name has no part in it."""
        return sha256(self.onnx + f"\0{self.copies}{self.lone}".encode()).hexdigest()


@dataclass(frozen=True)
class Setup:
    """Who measures, and where: two figures may be compared only if their setups are alike.

    Attributes:
        executor: as `--executor`.
        device: `cpu` or `cuda`, of the machine that runs it.
        threads: of the CPU; 0 leaves the number to the executor.
        schedule: `untuned`, `fixed` or `tuned:N` of a compiling executor; '' for others.
        tvm: the TVM target, where TVM compiles.
    """

    executor: str
    device: str = "cpu"
    threads: int = 0
    schedule: str = ""
    tvm: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """A measured latency.

    Attributes:
        latency_s: of one copy of the workload: the lowest tenth of the repeats.
        cv: coefficient of variation of all repeats.
        repeats, calls: how many there were, and executions in each.
    """

    latency_s: float
    cv: float
    repeats: int
    calls: int

    @property
    def noisy(self) -> bool:
        """True where the repeats differ too much to learn from."""
        return self.cv > NOISY_CV


NOISY_CV = 0.05  # five repeats on a quiet machine differ by 1.6 % in the median, by 4.7 % in the worst tenth


class Prepared(Protocol):
    """A workload compiled, with its inputs where it reads them."""

    def run(self, calls: int) -> float:
        """Seconds of so many executions back to back, until the last has ended."""
        ...

    def outputs(self) -> dict[str, Array]:
        """What one execution gives, by name."""
        ...


class Engine(Protocol):
    """An executor that runs workloads on this machine.

    Attributes:
        version: of the library, part of what identifies a measurement.
    """

    version: str

    def prepare(self, workload: Workload, feed: Feed) -> Prepared:
        """Compile a workload and put its inputs in place.

        Raises:
            InputError: the executor cannot run it; the message names the operator.
        """
        ...
