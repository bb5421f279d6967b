"""From what users type to who measures: the executor's setup on this machine, and where measurements are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eopt.backends.detect import detect
from eopt.backends.executor import Executor
from eopt.backends.harness import store
from eopt.backends.harness.base import TUNED, UNTUNED, Setup
from eopt.backends.harness.store import Store
from eopt.backends.target import Target
from eopt.backends.tvm_target import tvm_target
from eopt.ir.errors import UsageError

Address = tuple[str, int]


@dataclass(frozen=True)
class Reach:
    """A tracker and the key of the devices behind it, instead of this machine.

    Attributes:
        trust_network: hosts that are not loopback are allowed: TVM RPC runs any code, unencrypted.
    """

    tracker: Address
    key: str
    trust_network: bool = False


def reach(rpc: str | None, key: str | None, trust_network: bool = False) -> Reach | None:
    """`--rpc` and `--key`; None without them.

    Raises:
        UsageError: one without the other, or no HOST:PORT.
    """
    if rpc is None and key is None:
        return None
    if rpc is None or key is None:
        raise UsageError("--rpc HOST:PORT and --key K go together: a tracker, and the kind of device behind it")
    host, colon, port = rpc.rpartition(":")
    if not host or not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"--rpc {rpc}: expected HOST:PORT, as 127.0.0.1:9190")
    return Reach((host.strip("[]"), int(port)), key, trust_network)


def setup_of(target: Target, executor: Executor, tune: int | None, away: Reach | None) -> Setup:
    """Who measures a target.

    Args:
        tune: trials of the search for a schedule.
        away: the device is behind a tracker, not this machine.

    Raises:
        UsageError: the target is not this machine, or the executor does not tune or is not reached from afar.
    """
    why = elsewhere(target) if away is None else None
    if why is not None:
        raise UsageError(why)
    return setup_for(target, executor, tune, away)


def setup_for(target: Target, executor: Executor, tune: int | None, away: Reach | None) -> Setup:
    """As `setup_of`, wherever the target is: what its measurements are kept under.

    Raises:
        UsageError: the executor does not tune or is not reached from afar.
    """
    compiles = executor.name == "tvm"
    if tune is not None and not compiles:
        raise UsageError(f"--tune: {executor.name} has no schedules to search; --executor tvm has")
    if away is not None and not compiles:
        raise UsageError("--rpc: devices behind a tracker are measured with --executor tvm")
    schedule = (f"{TUNED}:{tune}" if tune else UNTUNED) if compiles else ""
    threads = (target.cores or 0) if target.kind == "cpu" and away is None else 0
    device = "cuda" if target.kind == "gpu" and target.vendor == "nvidia" else "cpu"
    return Setup(executor.name, device, threads, schedule, dict(tvm_target(target)) if compiles else {})


def elsewhere(target: Target) -> str | None:
    """Why a target cannot be measured on this machine; None where it is this machine."""
    here = detect()
    if (here.name, here.arch) == (target.name, target.arch) or (here.kind == "cpu" and _described(target, here)):
        return None
    return (
        f"target {target.name} is not this machine, which is {here.name} (--target auto); measure there, or through a "
        "tracker with --rpc HOST:PORT --key K"
    )


def _described(target: Target, here: Target) -> bool:
    """A sheet of the user's for this very machine."""
    from eopt.backends.target import shipped

    return target.name not in shipped() and (target.kind, target.arch, target.cores) == (
        here.kind,
        here.arch,
        here.cores,
    )


def store_of(cache: str | Path | None, target: Target) -> Store:
    """Where measurements of a target are kept; `--cache`, else the default folder."""
    return Store(Path(cache) if cache else store.default_folder(), f"{target.name}, {target.model}")
