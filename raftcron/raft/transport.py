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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from raftcron.clock import Clock
from raftcron.errors import ConfigurationError
from raftcron.raft import greeting
from raftcron.raft.bounds import TransportSettings
from raftcron.raft.complaints import Complaints
from raftcron.raft.connection import PARTING_SECONDS, Connection, FrameError
from raftcron.raft.greeting import Hello
from raftcron.raft.handshake import MAX_NAME_BYTES, NONCE_BYTES, Handshake, HandshakeError, derive_key, dial, listen
from raftcron.raft.peer import Link, Peer
from raftcron.raft.tls import Credentials, PeerTls

__all__ = ["Handlers", "Hello", "PeerHandler", "Transport", "TransportSettings"]

DEFAULT_SETTINGS = TransportSettings()
BRANCHES = (  # that are counted: why a peer that has proved the secret does not come in, beside what `admit` says
    "hello refused (another name than was proved)",
    "hello refused (our own name)",
    "hello refused (no peer)",
    "hello refused (earlier life)",
)


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
        tls: PeerTls | None = None,
    ) -> None:
        """`listen` is (host, port), port 0 takes any; `draw` gives random bytes.

        `peers` are all other nodes, until `set_peers` says otherwise; an address is looked up at each attempt to
        connect.  `admit` says why a node is not taken, or None.  With `tls` nobody is reached or heard without.
        ConfigurationError for a name that cannot be one, and for a certificate that cannot be used.
        """
        self.refusals: dict[str, str] = {}  # peer -> why the last attempt to connect to it came to nothing, if known
        self._hello = hello
        self._name = hello().name
        self._listen = listen
        self._key = derive_key(secret)
        self._handler = handler
        self._clock = clock
        self._admit = admit
        self._draw = draw
        self._settings = settings
        _check_names(self._name)
        self._tls = None if tls is None else Credentials(tls, self._name)

        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._peers: dict[str, Peer] = {}
        self._links: dict[Connection, Link] = {}
        self._strangers: dict[Connection, None] = {}  # inbound, secret not proved; the oldest first
        self._diallers: dict[Peer, asyncio.Task[None]] = {}  # from start to stop; one that is ending may be left out
        self._tending: asyncio.TimerHandle | None = None
        self._of_peers, self._of_strangers = Complaints(clock), Complaints(clock)
        self._order = 0
        self._choices = 0
        self._is_stopped = False
        self.passes = dict.fromkeys(BRANCHES, 0)  # how often each was taken
        self.set_peers(peers)

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
        for peer in self._peers.values():
            self._begin(peer)
        self._tend()

    def set_peers(self, peers: Mapping[str, tuple[str, int]]) -> None:
        """From now on these are all other nodes.  ConfigurationError for a name that cannot be one: nothing changes.

        A peer that is new is dialled, one whose address is new is reached there from the next attempt on: what lives
        goes on.  To one that is gone what was sent may still leave; then its connections end, of which the handler
        hears nothing, and when it dials it is refused as `admit` says.
        """
        _check_names(*peers)
        for name in [name for name in self._peers if name not in peers]:
            self._remove(self._peers.pop(name))
        for name, address in peers.items():
            if name in self._peers:
                self._peers[name].move(address)
                continue
            self._peers[name] = peer = Peer(
                name,
                address,
                open_link=self._open_dialling,
                refused=self._handler.on_refused,
                draw=self._draw,
                settings=self._settings,
            )
            if self._server is not None and not self._is_stopped:
                self._begin(peer)

    def _begin(self, peer: Peer) -> None:
        """Dial it from now on; the lesser name waits a little for the other."""
        assert self._loop is not None
        delay = 0.0 if self._name > peer.name else self._settings.retry_max_seconds / 2
        self._diallers[peer] = task = self._loop.create_task(peer.run(delay))
        task.add_done_callback(self._dialler_ended)

    def _remove(self, peer: Peer) -> None:
        if peer in self._diallers:
            self._diallers.pop(peer).cancel()
        for link in list(self._links.values()):
            if link.name == peer.name:
                self._part(link)
        self.refusals.pop(peer.name, None)
        self._of_peers.forget(peer.name)

    def _part(self, link: Link) -> None:
        """End it without a word to anybody; what was sent may leave."""
        if link.choice and not link.connection.is_over:
            link.connection.close()
        else:
            link.connection.abort()

    async def stop(self) -> None:
        """End everything without a further call to the handler; what was sent has a second to leave."""
        self._is_stopped = True
        if self._tending is not None:
            self._tending.cancel()
        if self._server is not None:
            await _close(self._server)
        diallers = list(self._diallers.values())
        for dialler in diallers:
            dialler.cancel()
        await asyncio.gather(*diallers, return_exceptions=True)
        links = list(self._links.values())
        for link in links:
            self._part(link)
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

    def _live(self, name: str) -> Link | None:
        peer = self._peers.get(name)
        if peer is None or peer.live is None or peer.live.connection.is_over:
            return None
        return peer.live

    # ---- dialling --------------------------------------------------------------------------------------------------

    def _dialler_ended(self, task: asyncio.Task[None]) -> None:
        """Only a handler that raises ends a dialler; the loop's owner has to know."""
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "a peer handler raised", "exception": error})

    def _open_dialling(self, name: str) -> Link:
        return self._open(dial(self._key, self._name, name, self._draw(NONCE_BYTES)), name)

    def _accept(self) -> Connection:
        return self._open(listen(self._key, self._name, self._draw(NONCE_BYTES)), None).connection

    def _open(self, handshake: Handshake, dialled: str | None) -> Link:
        connection = Connection(
            self,
            handshake,
            self._clock,
            dialled=dialled,
            max_frame_bytes=greeting.MAX_GREETING_BYTES,
            channel=None if self._tls is None else self._tls.channel(is_dialling=dialled is not None),
        )
        self._order += 1
        self._links[connection] = link = Link(connection, self._order, dialled)
        return link

    # ---- what connections tell -------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        if self._is_stopped:
            connection.abort()
            return
        connection.set_deadline(self._settings.handshake_seconds)
        if connection.dialled is not None:
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
        host = connection.host
        self._of_strangers.say(host, "many", "peer_turned_away from=%s: too many connections without proof", host)
        connection.abort()

    def authenticated(self, connection: Connection) -> None:
        assert connection.session is not None
        self._strangers.pop(connection, None)
        link, name = self._links[connection], connection.session.peer
        if link.dialled is not None and self.connected(name):
            self._drop(link)  # the peer's own attempt was quicker
        elif (mismatch := connection.mismatch(name)) is not None:
            self._refuse(link, name, mismatch)
        else:
            connection.send(greeting.HELLO, list(self._hello()))

    def received(self, connection: Connection, kind: Any, message: Any) -> None:
        link = self._links[connection]
        assert connection.session is not None
        name = connection.session.peer
        if isinstance(kind, str):
            if not link.choice:
                raise FrameError("a message came before the connection was live")
            self._handler.on_message(name, kind, message)
        elif type(kind) is not int:
            raise FrameError("the kind of a frame is neither a text nor a whole number")
        elif kind == greeting.PING:
            pass
        elif kind == greeting.REFUSED:
            reason, is_stranger = greeting.read_refusal(message)
            self._note_refusal(name, f"{self._where(name, connection)} refuses this node: {reason}")
            connection.abort()
            if is_stranger and name in self._peers:
                self._handler.on_turned_away(name, reason)
        elif kind == greeting.HELLO and link.hello is None:
            self._take_hello(link, name, message)
        elif kind == greeting.READY and self._name > name and link.hello is not None and not link.choice:
            self._choose(link, name)
        elif kind == greeting.LIVE and self._name < name and link.hello is not None and not link.choice:
            self._follow(link, name, greeting.read_choice(message))
        else:
            raise FrameError(f"a frame of kind {kind!r} came out of turn")

    def batch_ended(self, connection: Connection) -> None:
        if self._links[connection].choice:
            self._handler.on_batch_end()

    def over(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        link = self._links.pop(connection)
        link.settled.set()
        if self._is_stopped:
            return
        self._report_failure(link)
        peer = self._peers.get(link.name or "")
        if peer is None or peer.live is not link:
            return
        peer.ended(self._clock.monotonic() - link.live_at)
        self._handler.on_disconnected(peer.name)

    # ---- which connection lives --------------------------------------------------------------------------------------

    def _take_hello(self, link: Link, name: str, message: Any) -> None:
        hello = greeting.read_hello(message)
        stranger = self._admit(hello) if hello.name == name != self._name else None
        reason = stranger or self._objection(hello, name)
        if reason is not None:
            self._refuse(link, name, reason, is_stranger=stranger is not None)
            return
        link.hello = hello
        if self._name < name:
            link.connection.send(greeting.READY, None)

    def _refuse(self, link: Link, name: str, reason: str, *, is_stranger: bool = False) -> None:
        self._note_refusal(name, f"this node refuses {self._where(name, link.connection)}: {reason}")
        link.connection.send(greeting.REFUSED, greeting.write_refusal(reason, is_stranger))
        self._drop(link)

    def _objection(self, hello: Hello, name: str) -> str | None:
        if hello.name != name:
            self.passes["hello refused (another name than was proved)"] += 1
            return f"it proved to be {name!r} and calls itself {hello.name!r}"
        if name == self._name:
            self.passes["hello refused (our own name)"] += 1
            return f"two nodes are named {name!r}: give each node a name of its own"
        if name not in self._peers:
            self.passes["hello refused (no peer)"] += 1
            return f"{name!r} is not a member of this cluster"
        live = self._live(name)
        if live is not None and hello.disk_id == live.disk_id and hello.incarnation < live.incarnation:
            self.passes["hello refused (earlier life)"] += 1
            return f"incarnation {live.incarnation} of {name!r} is connected, and this is {hello.incarnation}"
        return None

    def _choose(self, link: Link, name: str) -> None:
        """The greater name's part.  The newer connection lives, since its dialler had none when it dialled."""
        live = self._live(name)
        if live is not None and live.life == link.life and live.live_order > link.opened_order:
            self._drop(link)  # two crossed, and one lives already
            return
        self._choices += 1
        link.connection.send(greeting.LIVE, self._choices)
        self._enliven(link, name, self._choices)

    def _follow(self, link: Link, name: str, choice: int) -> None:
        """The lesser name's part."""
        live = self._live(name)
        if live is not None and live.disk_id == link.disk_id and (link.life, choice) < (live.life, live.choice):
            self._drop(link)
            return
        self._enliven(link, name, choice)

    def _enliven(self, link: Link, name: str, choice: int) -> None:
        peer = self._peers[name]
        former = peer.live
        peer.enliven(link)
        self._order += 1
        link.choice, link.live_order, link.live_at = choice, self._order, self._clock.monotonic()
        link.connection.set_deadline(None)
        link.connection.max_frame_bytes = self._settings.max_frame_bytes
        self.refusals.pop(name, None)
        self._of_peers.forget(name)
        if former is not None:
            former.connection.retire()
        link.settled.set()
        self._handler.on_connected(name)

    def _drop(self, link: Link) -> None:
        """A connection that is not wanted."""
        link.connection.retire()
        link.settled.set()

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
                self._of_peers.say(name, "idle", "peer_idle peer=%s seconds=%.1f", name, now - connection.received_at)
                connection.abort()
            elif now - connection.sent_at >= settings.ping_seconds / 2:
                connection.send(greeting.PING, None)
        self._tending = self._loop.call_later(settings.ping_seconds / 2, self._tend)

    # ---- what goes wrong, said once --------------------------------------------------------------------------------

    def _report_failure(self, link: Link) -> None:
        connection, error = link.connection, link.connection.failure
        if error is None:
            return
        if connection.session is not None:
            name, reason = connection.session.peer, str(error)
            self._of_peers.say(name, reason, "peer_broken peer=%s at=%s: %s", name, connection.address, reason)
        elif link.dialled is not None:
            self._note_refusal(link.dialled, f"{self._where(link.dialled, connection)}: {error}")
        else:
            cause = error.cause if isinstance(error, HandshakeError) else ""
            self._of_strangers.say(connection.host, cause, "peer_unproven peer at %s: %s", connection.address, error)

    def _where(self, name: str, connection: Connection) -> str:
        """A peer and its address; without the port where that is another one each time."""
        peer = self._peers.get(name)
        return f"{name} at {connection.host}" if peer is None else f"{name} at {peer.address[0]}:{peer.address[1]}"

    def _note_refusal(self, name: str, reason: str) -> None:
        """Remember why a peer is not connected; log it when it is news."""
        if name in self._peers:
            self.refusals[name] = reason
        self._of_peers.say(name, reason, "peer_refused peer=%s: %s", name, reason)


def _check_names(*names: str) -> None:
    for name in names:
        if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
            raise ConfigurationError(f"a node name has 1 to {MAX_NAME_BYTES} bytes in UTF-8; {name!r} has not")


async def _close(server: asyncio.Server) -> None:
    """End a server, and leak nothing.

    In older Pythons, 3.11 for one, a server that closes in the turn in which it has accepted a connection never closes
    that (https://github.com/python/cpython/issues/109564); so it takes no more first, and closes a turn later.
    """
    for listening in server.sockets:
        server.get_loop().remove_reader(listening)
    if server.sockets:
        await asyncio.sleep(0)
    server.close()
