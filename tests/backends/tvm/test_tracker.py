"""Talking to a tracker: only on loopback unless told otherwise, and never for ever."""

from __future__ import annotations

import socket
import struct
from threading import Thread

import pytest

from eopt.backends.tvm.tracker import Tracker, loopback
from eopt.ir.errors import InputError


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
        ("192.168.0.7", False), ("localhost.example.com", False), ("", False),
    ],
)  # fmt: skip
def test_only_loopback_is_loopback(host, expected):
    assert loopback(host) is expected


def test_a_host_on_the_network_needs_to_be_trusted():
    with pytest.raises(InputError, match="SSH tunnel"):
        Tracker(("192.0.2.1", 9190))


@pytest.mark.slow
def test_a_refused_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError, match=f"127.0.0.1:{port}: no connection"):
        Tracker(("127.0.0.1", port))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (b"HTTP", "no TVM RPC tracker"),
        (b"", "no connection"),
        (struct.pack("<i", 0x2F271) + struct.pack("<i", 1 << 30), "stopped answering"),
        (struct.pack("<i", 0x2F271) + struct.pack("<i", 4) + b"[[[[", "stopped answering"),
        (struct.pack("<i", 0x2F271) + struct.pack("<i", 4) + b"[-1]", "refused"),
        (struct.pack("<i", 0x2F271), "stopped answering"),
    ],
)
def test_whatever_answers_there_is_named(answers, message):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            connection.sendall(answers)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)

        Thread(target=serve, daemon=True).start()
        with pytest.raises(InputError, match=message), Tracker(server.getsockname()[:2], timeout_s=5) as tracker:
            tracker.servers("any")
