"""Ten thousand connections that say nothing, to a node in a process of its own."""

from __future__ import annotations

import http.client
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from raftcron.api.connections import CONNECTIONS_MAX

CROWD = 10_000
OTHER_FILES = 200  # of either process
MEMORY_MAX = 56 << 20  # bytes that a node grows by; for those that it may hold it takes half of that
RESET = struct.pack("ii", 1, 0)  # closed at once: other tests need the ports
STEP = 50  # connections that come at once: the queue of those that nobody has accepted yet holds 128


@contextmanager
def files_for(count: int) -> Iterator[None]:
    """This process may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"a process may not have {count:,} files open here (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def lone_node() -> Iterator[tuple[int, int]]:
    """Its process id and its port."""
    command = [sys.executable, "-m", "tests.api.lone_node"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.stdin.close()


def memory(pid: int) -> int:
    """Bytes that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def answer(port: int) -> int:
    """The status of a request on a connection of its own."""
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        asked.request("GET", "/v1/jobs")
        return asked.getresponse().status
    finally:
        asked.close()


def is_ended(held: socket.socket) -> bool:
    """Whether the node has closed it."""
    held.setblocking(False)
    try:
        return held.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_ten_thousand_idle_connections_neither_fill_a_node_nor_keep_others_out() -> None:
    """Silent ones and heads that are never complete: each request is answered, files and memory stay bounded."""
    with files_for(CROWD + OTHER_FILES), lone_node() as (pid, port), ExitStack() as crowd:
        assert answer(port) == 200
        before, opened = memory(pid), []
        for number in range(CROWD):
            held = crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            opened.append(held)
            if number % 2:
                held.sendall(b"GET /livez HTT")
            if number % STEP == STEP - 1:
                assert answer(port) == 200
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= CONNECTIONS_MAX + OTHER_FILES
        assert memory(pid) - before < MEMORY_MAX
        ended = [is_ended(held) for held in opened]
        assert all(ended[: CROWD - CONNECTIONS_MAX]), "those that were idle longest made room"
        assert not any(ended[-CROWD // 4 :]), "the others are still held"
        assert answer(port) == 200
