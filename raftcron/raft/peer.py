"""One configured peer: its address, the connection to it that lives, and the dialling while none does."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress

from raftcron.raft.bounds import TransportSettings
from raftcron.raft.connection import Connection
from raftcron.raft.greeting import Hello

_STABLE_SECONDS = 0.25  # a connection that lived less is followed by a back-off


class Link:
    """What the transport knows of one connection beside its bytes."""

    def __init__(self, connection: Connection, opened_order: int, dialled: str | None) -> None:
        self.connection = connection
        self.opened_order = opened_order
        self.dialled = dialled  # the peer whom this side dialled
        self.settled = asyncio.Event()  # it lives or is over
        self.hello: Hello | None = None  # what the other side said, once this side has taken it
        self.choice = 0  # number of the greater side's choice; 0: does not live
        self.live_order = 0
        self.live_at = 0.0  # monotonic seconds

    @property
    def name(self) -> str | None:
        """Who is at the other end: proved, or else dialled."""
        session = self.connection.session
        return self.dialled if session is None else session.peer

    @property
    def disk_id(self) -> str:
        assert self.hello is not None
        return self.hello.disk_id

    @property
    def incarnation(self) -> int:
        """Of its disk: those of two disks have no order."""
        assert self.hello is not None
        return self.hello.incarnation

    @property
    def life(self) -> tuple[str, int]:
        """Which process it is."""
        return self.disk_id, self.incarnation


class Peer:
    """A peer as the transport keeps it: `run` dials whenever no connection lives."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        *,
        open_link: Callable[[str], Link],
        refused: Callable[[str], None],
        draw: Callable[[int], bytes],
        settings: TransportSettings,
    ) -> None:
        """`open_link` makes a link for a connection to the named peer; `refused` is PeerHandler's."""
        self.name = name
        self.address = address
        self.live: Link | None = None
        self._open_link = open_link
        self._refused = refused
        self._draw = draw
        self._settings = settings
        self._is_missed = False  # its live connection ended, and neither a new one nor a refusal has come
        self._short_lives = 0  # live connections in a row that lasted less than _STABLE_SECONDS
        self._stirred = asyncio.Event()  # there is a reason to dial at once

    # ---- what happens to it ----------------------------------------------------------------------------------------

    def enliven(self, link: Link) -> None:
        """From now on this one lives."""
        self.live = link
        self._is_missed = False

    def ended(self, lived_seconds: float) -> None:
        """The live connection has ended."""
        self.live = None
        self._is_missed = True
        self._short_lives = self._short_lives + 1 if lived_seconds < _STABLE_SECONDS else 0
        self._stirred.set()

    def move(self, address: tuple[str, int]) -> None:
        """It is reached elsewhere; a connection that lives goes on."""
        if address != self.address:
            self.address = address
            self._is_missed = False  # a refusal there would say nothing of the process that ended
            self._stirred.set()

    # ---- dialling --------------------------------------------------------------------------------------------------

    async def run(self, delay_seconds: float) -> None:
        """Dial whenever no connection lives, for ever; the first time after `delay_seconds`."""
        failures = 0
        delay = delay_seconds
        while True:
            if delay:
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._stirred.wait()
            while self.live is not None:
                self._stirred.clear()
                await self._stirred.wait()
            if self._stirred.is_set():  # an end just now: dial at once, unless ends come one upon the other
                self._stirred.clear()
                failures = max(0, self._short_lives - 1)
                if failures and self.live is None:
                    await asyncio.sleep(self._retry_delay(failures))
            if self.live is None:
                await self._dial()
            failures = 0 if self.live is not None else failures + 1
            delay = self._retry_delay(failures)

    def _retry_delay(self, failures: int) -> float:
        """Seconds before the next attempt: doubling, between half and all of it, so that two do not keep step."""
        if not failures:
            return 0.0
        settings = self._settings
        first = settings.missed_retry_min_seconds if self._is_missed else settings.retry_min_seconds
        longest = min(settings.retry_max_seconds, first * 2.0 ** min(failures - 1, 16))
        return longest * (0.5 + int.from_bytes(self._draw(2), "little") / 131072)

    async def _dial(self) -> None:
        try:
            link = await self._connect()
        except ConnectionRefusedError:
            if self._is_missed:
                self._is_missed = False
                self._refused(self.name)
        except (OSError, TimeoutError, UnicodeError):
            return  # it is down or cut off, which the next attempt will tell as well
        else:
            await link.settled.wait()

    async def _connect(self) -> Link:
        """Raises ConnectionRefusedError only if every address of the peer refuses."""
        loop = asyncio.get_running_loop()
        host, port = self.address
        links: list[Link] = []

        def make() -> Connection:
            links.append(self._open_link(self.name))
            return links[-1].connection

        async with asyncio.timeout(self._settings.connect_seconds):
            failures: list[OSError] = []
            for address in await _resolve(host, port):
                try:
                    await loop.create_connection(make, address, port)
                    return links[-1]
                except OSError as error:
                    failures.append(error)
        others = [error for error in failures if not isinstance(error, ConnectionRefusedError)]
        raise (others or failures)[0]


async def _resolve(host: str, port: int) -> list[str]:
    """A name is looked up at each attempt: the peer may have moved."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))
