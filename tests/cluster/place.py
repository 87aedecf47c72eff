"""Where processes run and sockets are opened: on this machine's loopback, or in a network namespace of its own."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp

NAMESPACES = "/run/netns"
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Place:
    """A network with an address in it; `namespace` None is the one that this process is in."""

    host: str = "127.0.0.1"
    namespace: str | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets opened and processes started within belong there.  Nothing may be awaited within."""
        if self.namespace is None:
            yield
            return
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(f"{NAMESPACES}/{self.namespace}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(own)
        finally:
            os.close(own)

    def connector(self) -> aiohttp.TCPConnector:
        """For a client of what listens there; no connection is kept."""

        def opened(address: tuple[int, int, int, str, object]) -> socket.socket:
            with self.entered():
                return socket.socket(*address[:3])

        return aiohttp.TCPConnector(force_close=True, limit=0, socket_factory=opened)


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):  # os.setns came with Python 3.12
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


HERE = Place()
