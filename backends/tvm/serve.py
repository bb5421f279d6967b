"""A fleet on this machine, for trying out and for tests: a tracker and servers that only loopback reaches."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep

from eopt.backends.tvm.require import require
from eopt.backends.tvm.tracker import Address, Tracker
from eopt.ir.errors import InputError

HOST = "127.0.0.1"
START_S = 180.0  # each server imports TVM twice


@dataclass(frozen=True)
class Fleet:
    """A running fleet.

    Attributes:
        tracker: host and port.
        key: of its servers.
        servers: their process groups, and the port of each.
    """

    tracker: Address
    key: str
    servers: dict[int, int]

    def kill(self, group: int) -> None:
        """End one server at once, whatever it is doing."""
        _kill(group)


@contextmanager
def local_fleet(count: int, key: str = "local", threads: int = 1) -> Iterator[Fleet]:
    """A tracker and so many servers, ready for work, until the block ends.

    What listens can be told to run anything by every process of this machine, other accounts' included.

    Raises:
        InputError: they do not come up.
        UsageError: TVM is missing.
    """
    require()
    port, *ports = _free_ports(count + 1)
    environment = {**os.environ, "TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_started("rpc_tracker", port, [], environment))
        where = ["--tracker", f"{HOST}:{port}", "--key", key, "--custom-addr", HOST]
        processes += [_started("rpc_server", each, where, environment) for each in ports]
        _wait((HOST, port), key, count, processes)
        groups = [process.pid for process in processes[1:]]
        yield Fleet((HOST, port), key, dict(zip(groups, ports, strict=True)))
    finally:
        for process in processes:
            _kill(process.pid)
            process.wait()


def _started(program: str, port: int, more: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    own = ["--host", HOST, "--port", str(port), "--port-end", str(port + 1)]
    return subprocess.Popen(
        [sys.executable, "-m", f"tvm.exec.{program}", *own, *more],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # servers fork, and all that belongs to one is killed with it
    )


def _wait(tracker: Address, key: str, count: int, processes: list[subprocess.Popen[bytes]]) -> None:
    until = monotonic() + START_S
    while monotonic() < until:
        if any(process.poll() is not None for process in processes):
            raise InputError("local fleet: a process of it ended while starting")
        try:
            with Tracker(tracker) as asked:
                if len(asked.servers(key)) == count:
                    return
        except InputError:
            pass  # not up yet
        sleep(0.2)
    raise InputError(f"local fleet: not up in {START_S:.0f} s")


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
