"""Messages between the nodes of a cluster, one live connection a pair, known by name; what they say is others' matter.

Each side dials whenever it has no live connection (the lesser name a little later at start), so that both learn at
once whether the other's process is dead: its port refuses.  Of the connections that result, the node with the greater
name says which one lives, and numbers its choices; the other follows the highest number:

    both     HELLO  who I am                 (after the handshake)
    lesser   READY  I take your HELLO
    greater  LIVE   I take yours; this one lives from now on, choice number n

A connection that another one replaced is silent: nothing of it is delivered, and its end is nobody's end.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from raftcron.clock import Clock
from raftcron.errors import ConfigurationError
from raftcron.raft.connection import PARTING_SECONDS, Connection, FrameError
from raftcron.raft.handshake import MAX_NAME_BYTES, NONCE_BYTES, Unproven, derive_key, dial, listen

logger = logging.getLogger(__name__)

_HELLO, _READY, _LIVE, _REFUSED, _PING = range(5)

_MAX_COMPLAINTS = 1024  # of which is remembered that they were logged
_MAX_REASON_CHARS = 500  # of what another node may have us log
_STABLE_SECONDS = 0.25  # a connection that lived less is followed by a back-off


class Hello(NamedTuple):
    """What a node says of itself."""

    name: str
    disk_id: str
    cluster_id: str | None  # None: belongs to no cluster yet
    incarnation: int
    is_empty: bool  # has no term, vote or entry


class PeerHandler(Protocol):
    """Who uses the transport.  Called on the loop; must not raise."""

    def on_connected(self, peer: str) -> None:
        """A connection lives from now on; if one lived before, it has been replaced and is silent."""

    def on_disconnected(self, peer: str) -> None:
        """The live connection ended."""

    def on_refused(self, peer: str) -> None:
        """After that the peer's port refused a connection: its process is dead.  At most once an end."""

    def on_turned_away(self, peer: str, reason: str) -> None:
        """A peer that has proven itself says that this node is none of the cluster's."""

    def on_message(self, peer: str, kind: str, message: Any) -> None:
        """A message of the live connection."""

    def on_batch_end(self) -> None:
        """All messages that came together have been given."""


@dataclass(frozen=True)
class Handlers:
    """A PeerHandler made of functions."""

    on_connected: Callable[[str], None]
    on_disconnected: Callable[[str], None]
    on_refused: Callable[[str], None]
    on_turned_away: Callable[[str, str], None]
    on_message: Callable[[str, str, Any], None]
    on_batch_end: Callable[[], None]


@dataclass(frozen=True)
class TransportSettings:
    """Bounds, each in the unit that its name ends with."""

    connect_seconds: float = 1.0
    handshake_seconds: float = 2.0  # from the first byte to a live connection
    idle_seconds: float = 5.0  # a live connection on which nothing came for so long is dead
    ping_seconds: float = 1.0  # a live connection on which nothing was sent for so long is pinged
    retry_min_seconds: float = 0.05
    missed_retry_min_seconds: float = 0.002  # after an end: a dying process may accept, and reset, a connection or two
    retry_max_seconds: float = 1.0
    max_frame_bytes: int = 8 << 20
    max_backlog_bytes: int = 16 << 20  # waiting to leave to one peer; beyond it `send` says no
    max_strangers: int = 64  # inbound connections that have not proved the secret; beyond it the oldest are closed
    max_strangers_per_host: int = 16  # all nodes may be on one host


DEFAULT_SETTINGS = TransportSettings()


class _Peer:
    """What is known of one configured peer."""

    def __init__(self) -> None:
        self.live: _Link | None = None
        self.ended = asyncio.Event()  # set at the end of a live connection
        self.is_missed = False  # its live connection ended, and neither a new one nor a refusal has come
        self.short_lives = 0  # live connections in a row that lasted less than _STABLE_SECONDS


class _Link:
    """What the transport knows of one connection beside its bytes."""

    def __init__(self, connection: Connection, opened_order: int, settled: asyncio.Future[None], dialled: str | None):
        self.connection = connection
        self.opened_order = opened_order
        self.settled = settled  # done when the connection lives or is over
        self.dialled = dialled  # the peer whom this side dialled
        self.hello: Hello | None = None  # what the other side said, once this side has taken it
        self.choice = 0  # number of the greater side's choice; 0: does not live
        self.live_order = 0
        self.live_at = 0.0  # monotonic seconds


class Transport:
    """Authenticated connections to all peers, kept up.  Used on one loop only."""

    def __init__(
        self,
        *,
        hello: Callable[[], Hello],
        listen: tuple[str, int],
        peers: Mapping[str, tuple[str, int]],
        secret: bytes,
        handler: PeerHandler,
        clock: Clock,
        admit: Callable[[Hello], str | None],
        draw: Callable[[int], bytes],
        settings: TransportSettings = DEFAULT_SETTINGS,
    ) -> None:
        """`listen` is (host, port), port 0 takes any; `draw` gives random bytes.

        `peers` are all other nodes; the names are fixed, an address is looked up at each attempt to connect.
        `admit` says why a node is not taken, or None.  ConfigurationError for a name that cannot be one.
        """
        self.refusals: dict[str, str] = {}  # peer -> why the last attempt to connect to it came to nothing, if known
        self._hello = hello
        self._name = hello().name
        self._listen = listen
        self._addresses = peers
        self._key = derive_key(secret)
        self._handler = handler
        self._clock = clock
        self._admit = admit
        self._draw = draw
        self._settings = settings
        for name in (self._name, *peers):
            if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
                raise ConfigurationError(f"a node name has 1 to {MAX_NAME_BYTES} bytes in UTF-8; {name!r} has not")

        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._peers: dict[str, _Peer] = {}
        self._links: dict[Connection, _Link] = {}
        self._strangers: dict[Connection, None] = {}  # inbound, secret not proved; the oldest first
        self._tasks: list[asyncio.Task[None]] = []
        self._tending: asyncio.TimerHandle | None = None
        self._complaints: dict[tuple[str, str], None] = {}
        self._order = 0
        self._choices = 0
        self._is_stopped = False

    # ---- what its user does ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and begin to dial.  ConfigurationError if the address cannot be had."""
        self._loop = loop = asyncio.get_running_loop()
        host, port = self._listen
        try:
            self._server = await loop.create_server(self._accept, host, port)
        except OSError as error:
            hint = (
                f"`ss -ltnp 'sport = :{port}'` names the process that has it: stop it, or give this node another one"
                if error.errno == errno.EADDRINUSE
                else "give this node an address of this machine"
            )
            raise ConfigurationError(f"cannot listen for peers on {host}:{port}: {error}; {hint}") from error
        for name in self._addresses:
            self._peers[name] = _Peer()
        self._tasks = [loop.create_task(self._keep_connected(name, peer)) for name, peer in self._peers.items()]
        for task in self._tasks:
            task.add_done_callback(self._dialler_ended)
        self._tend()

    async def stop(self) -> None:
        """End everything without a further call to the handler; what was sent has a second to leave."""
        self._is_stopped = True
        if self._tending is not None:
            self._tending.cancel()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = list(self._links.values())
        for link in links:
            if link.choice and not link.connection.is_over:
                link.connection.close()
            else:
                link.connection.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * PARTING_SECONDS):
                for link in links:
                    await link.connection.lost.wait()

    @property
    def bound_port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def connected(self, peer: str) -> bool:
        return self._live(peer) is not None

    def hello_of(self, peer: str) -> Hello | None:
        """What the peer said of itself when the live connection began."""
        link = self._live(peer)
        return None if link is None else link.hello

    def send(self, peer: str, kind: str, message: Any) -> bool:
        """Send msgpack values; False if no connection lives or too much waits already.  May be lost all the same.

        ValueError if the message is over `max_frame_bytes`.
        """
        link = self._live(peer)
        if link is None or link.connection.backlog_bytes > self._settings.max_backlog_bytes:
            return False
        link.connection.send(kind, message)
        return True

    def _live(self, name: str) -> _Link | None:
        peer = self._peers.get(name)
        if peer is None or peer.live is None or peer.live.connection.is_over:
            return None
        return peer.live

    # ---- dialling --------------------------------------------------------------------------------------------------

    async def _keep_connected(self, name: str, peer: _Peer) -> None:
        settings = self._settings
        failures = 0
        delay = 0.0 if self._name > name else settings.retry_max_seconds / 2
        while True:
            if delay:
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await peer.ended.wait()
            while peer.live is not None:
                peer.ended.clear()
                await peer.ended.wait()
            if peer.ended.is_set():  # an end just now: dial at once, unless ends come one upon the other
                peer.ended.clear()
                failures = max(0, peer.short_lives - 1)
                if failures and peer.live is None:
                    await asyncio.sleep(self._retry_delay(peer, failures))
            if peer.live is None:
                await self._dial(name, peer)
            failures = 0 if peer.live is not None else failures + 1
            delay = self._retry_delay(peer, failures)

    def _dialler_ended(self, task: asyncio.Task[None]) -> None:
        """Only a handler that raises ends a dialler; the loop's owner has to know."""
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "a peer handler raised", "exception": error})

    def _retry_delay(self, peer: _Peer, failures: int) -> float:
        """Seconds before the next attempt: doubling, between half and all of it, so that two do not keep step."""
        if not failures:
            return 0.0
        settings = self._settings
        first = settings.missed_retry_min_seconds if peer.is_missed else settings.retry_min_seconds
        longest = min(settings.retry_max_seconds, first * 2.0 ** min(failures - 1, 16))
        return longest * (0.5 + int.from_bytes(self._draw(2), "little") / 131072)

    async def _dial(self, name: str, peer: _Peer) -> None:
        try:
            connection = await self._connect(name)
        except ConnectionRefusedError:
            if peer.is_missed:
                peer.is_missed = False
                self._handler.on_refused(name)
        except (OSError, TimeoutError, UnicodeError):
            return  # it is down or cut off, which the next attempt will tell as well
        else:
            link = self._links.get(connection)
            if link is not None:
                await link.settled

    async def _connect(self, name: str) -> Connection:
        """Raises ConnectionRefusedError only if every address of the peer refuses."""
        assert self._loop is not None
        host, port = self._addresses[name]
        async with asyncio.timeout(self._settings.connect_seconds):
            addresses = await self._resolve(host, port)
            failures: list[OSError] = []
            for address in addresses:
                try:
                    _, connection = await self._loop.create_connection(lambda: self._make_dialling(name), address, port)
                    return connection
                except OSError as error:
                    failures.append(error)
        others = [error for error in failures if not isinstance(error, ConnectionRefusedError)]
        raise (others or failures)[0]

    async def _resolve(self, host: str, port: int) -> list[str]:
        """A name is looked up at each attempt: the peer may have moved."""
        assert self._loop is not None
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def _make_dialling(self, name: str) -> Connection:
        return self._make(dial(self._key, self._name, name, self._draw(NONCE_BYTES)), name)

    def _accept(self) -> Connection:
        return self._make(listen(self._key, self._name, self._draw(NONCE_BYTES)), None)

    def _make(self, handshake: Any, dialled: str | None) -> Connection:
        assert self._loop is not None
        connection = Connection(self, handshake, self._clock, dialled is not None, self._settings.max_frame_bytes)
        self._order += 1
        self._links[connection] = _Link(connection, self._order, self._loop.create_future(), dialled)
        return connection

    # ---- what connections tell -------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        if self._is_stopped:
            connection.abort()
            return
        connection.set_deadline(self._settings.handshake_seconds)
        if connection.is_dialled:
            return
        self._strangers[connection] = None
        from_host = [stranger for stranger in self._strangers if stranger.host == connection.host]
        if len(from_host) > self._settings.max_strangers_per_host:
            self._turn_away(from_host[0])
        elif len(self._strangers) > self._settings.max_strangers:
            self._turn_away(next(iter(self._strangers)))

    def _turn_away(self, connection: Connection) -> None:
        """The oldest goes first: a node finishes its handshake in milliseconds, whoever only holds a place does not."""
        self._strangers.pop(connection, None)
        self._complain(
            connection.host, "", "peer_turned_away from=%s: too many connections without proof", connection.host
        )
        connection.abort()

    def authenticated(self, connection: Connection) -> None:
        assert connection.session is not None
        self._strangers.pop(connection, None)
        link, name = self._links[connection], connection.session.peer
        if link.dialled is not None and self.connected(name):
            self._drop(link)  # the peer's own attempt was quicker
            return
        connection.send(_HELLO, list(self._hello()))

    def received(self, connection: Connection, kind: Any, message: Any) -> None:
        link = self._links[connection]
        assert connection.session is not None
        name = connection.session.peer
        if isinstance(kind, str):
            if not link.choice:
                raise FrameError("a message came before the connection was live")
            self._handler.on_message(name, kind, message)
        elif kind == _PING:
            pass
        elif kind == _REFUSED:
            reason, is_stranger = _read_refusal(message)
            self._note_refusal(name, f"{self._where(name, connection)} refuses this node: {reason}")
            connection.abort()
            if is_stranger:
                self._handler.on_turned_away(name, reason)
        elif kind == _HELLO and link.hello is None:
            self._take_hello(link, name, message)
        elif kind == _READY and self._name > name and link.hello is not None and not link.choice:
            self._choose(link, name)
        elif kind == _LIVE and self._name < name and link.hello is not None and not link.choice:
            self._follow(link, name, message)
        else:
            raise FrameError(f"a frame of kind {kind!r} came out of turn")

    def batch_ended(self, connection: Connection) -> None:
        if self._links[connection].choice:
            self._handler.on_batch_end()

    def over(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        link = self._links.pop(connection)
        self._settle(link)
        if self._is_stopped:
            return
        self._report_failure(link)
        name = link.dialled if connection.session is None else connection.session.peer
        peer = self._peers.get(name or "")
        if peer is None or peer.live is not link:
            return
        assert name is not None
        peer.live = None
        peer.is_missed = True
        is_short = self._clock.monotonic() - link.live_at < _STABLE_SECONDS
        peer.short_lives = peer.short_lives + 1 if is_short else 0
        peer.ended.set()
        self._handler.on_disconnected(name)

    # ---- which connection lives --------------------------------------------------------------------------------------

    def _take_hello(self, link: _Link, name: str, message: Any) -> None:
        hello = _read_hello(message)
        stranger = self._admit(hello) if hello.name == name != self._name else None
        reason = stranger or self._objection(hello, name)
        if reason is not None:
            self._note_refusal(name, f"this node refuses {self._where(name, link.connection)}: {reason}")
            link.connection.send(_REFUSED, [reason, stranger is not None])
            self._drop(link)
            return
        link.hello = hello
        if self._name < name:
            link.connection.send(_READY, None)

    def _objection(self, hello: Hello, name: str) -> str | None:
        if hello.name != name:
            return f"it proved to be {name!r} and calls itself {hello.name!r}"
        if name == self._name:
            return f"two nodes are named {name!r}: give each node a name of its own"
        if name not in self._peers:
            return f"{name!r} is not a member of this cluster"
        live = self._live(name)
        if live is not None and hello.incarnation < _incarnation(live):
            return f"incarnation {_incarnation(live)} of {name!r} is connected, and this is {hello.incarnation}"
        return None

    def _choose(self, link: _Link, name: str) -> None:
        """The greater name's part.  The newer connection lives, since its dialler had none when it dialled."""
        live = self._live(name)
        if live is not None and live.live_order > link.opened_order and _incarnation(live) == _incarnation(link):
            self._drop(link)  # two crossed, and one lives already
            return
        self._choices += 1
        link.connection.send(_LIVE, self._choices)
        self._enliven(link, name, self._choices)

    def _follow(self, link: _Link, name: str, choice: Any) -> None:
        """The lesser name's part."""
        if not isinstance(choice, int) or choice < 1:
            raise FrameError("a choice is not a number from 1")
        live = self._live(name)
        if live is not None and (_incarnation(link), choice) < (_incarnation(live), live.choice):
            self._drop(link)
            return
        self._enliven(link, name, choice)

    def _enliven(self, link: _Link, name: str, choice: int) -> None:
        peer = self._peers[name]
        former, peer.live = peer.live, link
        self._order += 1
        link.choice, link.live_order, link.live_at = choice, self._order, self._clock.monotonic()
        link.connection.set_deadline(None)
        peer.is_missed = False
        self.refusals.pop(name, None)
        for complaint in [complaint for complaint in self._complaints if complaint[0] == name]:
            del self._complaints[complaint]
        if former is not None:
            former.connection.retire()
        self._settle(link)
        self._handler.on_connected(name)

    def _drop(self, link: _Link) -> None:
        """A connection that is not wanted."""
        link.connection.retire()
        self._settle(link)

    def _settle(self, link: _Link) -> None:
        if not link.settled.done():
            link.settled.set_result(None)

    # ---- idle connections ------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """End what is dead, ping what is idle."""
        assert self._loop is not None
        settings, now = self._settings, self._clock.monotonic()
        for name, peer in self._peers.items():
            if peer.live is None:
                continue
            connection = peer.live.connection
            if now - connection.received_at > settings.idle_seconds:
                logger.warning("peer_idle peer=%s seconds=%.1f", name, now - connection.received_at)
                connection.abort()
            elif now - connection.sent_at >= settings.ping_seconds / 2:
                connection.send(_PING, None)
        self._tending = self._loop.call_later(settings.ping_seconds / 2, self._tend)

    # ---- what goes wrong, said once --------------------------------------------------------------------------------

    def _report_failure(self, link: _Link) -> None:
        connection, error = link.connection, link.connection.failure
        if error is None:
            return
        if connection.session is not None:
            logger.warning("peer_broken peer=%s at=%s: %s", connection.session.peer, connection.address, error)
        elif link.dialled is not None:
            self._note_refusal(link.dialled, f"{self._where(link.dialled, connection)}: {error}")
        else:
            kind = "secret" if isinstance(error, Unproven) else "handshake"
            self._complain(connection.host, kind, "peer_unproven peer at %s: %s", connection.address, error)

    def _where(self, name: str, connection: Connection) -> str:
        """A peer and its address; without the port where that is another one each time."""
        host, port = self._addresses.get(name, (connection.host, None))
        return f"{name} at {host}" if port is None else f"{name} at {host}:{port}"

    def _note_refusal(self, name: str, reason: str) -> None:
        """Remember why a peer is not connected; log it when it is news."""
        if name in self._peers:
            self.refusals[name] = reason
        self._complain(name, reason, "peer_refused peer=%s: %s", name, reason)

    def _complain(self, who: str, kind: str, text: str, *values: object) -> None:
        """Log what is wrong with somebody, once."""
        if (who, kind) in self._complaints:
            return
        if len(self._complaints) >= _MAX_COMPLAINTS:
            self._complaints.pop(next(iter(self._complaints)))
        self._complaints[who, kind] = None
        logger.warning(text, *values)


def _incarnation(link: _Link) -> int:
    assert link.hello is not None
    return link.hello.incarnation


def _read_refusal(message: Any) -> tuple[str, bool]:
    """Why, and whether it is for good.  Raises FrameError."""
    match message:
        case [str(reason), bool(is_stranger)]:
            return f"{reason:.{_MAX_REASON_CHARS}}", is_stranger
    raise FrameError("a refusal is a reason and a flag")


def _read_hello(message: Any) -> Hello:
    match message:
        case [str(), str(), None | str(), int(), bool()]:
            return Hello(*message)
        case _:
            raise FrameError("its hello is not one")
