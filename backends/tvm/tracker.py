"""TVM's RPC tracker, asked with timeouts: which servers there are, and the lease of a free one.

TVM's own client waits for ever where nothing is free, and does not say which server it was given.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from eopt.ir.errors import InputError

Address = tuple[str, int]
TIMEOUT_S = 10.0
_MAX_ANSWER = 1 << 20  # bytes; a summary of a thousand servers is a tenth of it


@dataclass(frozen=True)
class Lease:
    """A server that is ours until a session with it ends.

    Attributes:
        server: its host and port.
        key: what a session with it opens with.
    """

    server: Address
    key: str


class Tracker:
    """A connection to a tracker, closed at the end of a `with` block.

    TVM's RPC runs whatever it is sent, without asking who sends it: whoever reaches a server owns its account, and a
    server may answer what it likes. So hosts other than loopback need `trust_network`; over an SSH tunnel there are
    none (`ssh -L 9190:localhost:9190 board`, with servers that report `--custom-addr 127.0.0.1`).

    Raises:
        InputError: the host is not loopback, nothing answers, or what answers is no tracker.
    """

    def __init__(self, address: Address, trust_network: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self.address, self.trust_network = address, trust_network
        self.name = f"RPC tracker {address[0]}:{address[1]}"
        if not (trust_network or loopback(address[0])):
            raise InputError(
                f"{self.name}: TVM RPC gives whoever is on the network full control of both ends; use an SSH tunnel "
                "to loopback, or say that the network is trusted"
            )
        from tvm.rpc.base import RPC_TRACKER_MAGIC

        try:
            self.socket = socket.create_connection(address, timeout_s)
            self.socket.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
            magic = struct.unpack("<i", self._read(4))[0]
        except OSError as error:
            raise InputError(f"{self.name}: no connection ({error.strerror or error})") from None
        if magic != RPC_TRACKER_MAGIC:
            raise InputError(f"{self.name}: what answers there is no TVM RPC tracker")

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def servers(self, key: str) -> set[Address]:
        """The servers that are connected under a key now, busy or free."""
        listed = self._summary().get("server_info", [])
        return {(str(info["addr"][0]), int(info["addr"][1])) for info in listed if info.get("key") == f"server:{key}"}

    def keys(self) -> list[str]:
        """The keys of all servers, sorted."""
        return sorted({str(info["key"]).partition(":")[2] for info in self._summary().get("server_info", [])})

    def lease(self, key: str) -> Lease | None:
        """A free server, `None` where there is none at this moment.

        Raises:
            InputError: the tracker is gone.
        """
        from tvm.rpc.base import TrackerCode

        if self._summary().get("queue_info", {}).get(key, {}).get("free", 0) < 1:
            return None
        host, port, match = self._ask([TrackerCode.REQUEST, key, "", 1])
        return Lease((str(host), int(port)), str(match))

    def _summary(self) -> dict[str, Any]:
        from tvm.rpc.base import TrackerCode

        return dict(self._ask([TrackerCode.SUMMARY]))

    def _ask(self, request: list[Any]) -> Any:
        from tvm.rpc.base import TrackerCode

        try:
            message = json.dumps(request).encode()
            self.socket.sendall(struct.pack("<i", len(message)) + message)
            size = struct.unpack("<i", self._read(4))[0]
            if not 0 < size <= _MAX_ANSWER:
                raise ValueError("an answer of no sensible size")
            code, *answer = json.loads(self._read(size))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.name}: it stopped answering ({error})") from None
        if code != TrackerCode.SUCCESS:
            raise InputError(f"{self.name}: it refused {request[0]}")
        return answer[0]

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self.socket.recv(size - len(found))
            if not part:
                raise ConnectionResetError("connection closed")
            found += part
        return found


def loopback(host: str) -> bool:
    """True for addresses that only this machine reaches. Names are not looked up, but for `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
