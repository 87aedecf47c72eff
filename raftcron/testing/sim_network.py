"""A network in memory: connections between loops that behave as TCP's do, on links that are slow, cut or one-way.

Each direction of a connection delivers in order or not at all.  A cut link holds what is sent until it heals; a killed
process's kernel ends its connections and refuses new ones; a machine without power says nothing at all.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from raftcron.testing.chance import Chance
from raftcron.testing.sim_loop import Conductor, NodeLoop

KERNEL_BYTES = 128 << 10  # of a connection's bytes on their way, so many are not the process's any more
READ_BYTES = 256 << 10  # what one read takes at most

_END = object()
_RESET = object()

Factory = Callable[[], asyncio.Protocol]


class Host:
    """One machine: at most one process on it listens, on one port."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.is_powered = True
        self.listener: Listener | None = None
        self.ends: dict[End, None] = {}


class Listener:
    """What `create_server` gives."""

    sockets = ()  # of the operating system

    def __init__(self, host: Host, loop: NodeLoop, factory: Factory, port: int) -> None:
        self.host = host
        self.loop = loop
        self.port = port
        self._factory = factory

    def close(self) -> None:
        if self.host.listener is self:
            self.host.listener = None

    def accept(self, end: End) -> None:
        if self.host.listener is not self:
            end.leave(is_reset=True)
        else:
            end.attach(self._factory())


class End(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: Network, host: Host, loop: NodeLoop, peer_address: tuple[str, int]) -> None:
        super().__init__()
        self.host = host
        self.loop = loop
        self.peer: End
        self.outgoing: deque[tuple[float, Any]] = deque()
        self.outgoing_bytes = 0
        self.last_arrival = 0.0
        self.is_pumping = False
        self.is_gone = False  # no process has it any more
        self.is_void = False  # its machine has lost it without a word
        self._network = network
        self._peer_address = peer_address
        self._protocol: asyncio.Protocol | None = None
        self._inbox: deque[Any] = deque()
        self._is_read_due = False
        self._is_closing = False
        host.ends[self] = None

    # ---- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer_address if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return max(0, self.outgoing_bytes - KERNEL_BYTES)

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: Any) -> None:
        if not self._is_closing and not self.is_gone and data:
            self._network.post(self, bytes(data))

    def close(self) -> None:
        self._close(is_reset=False)

    def abort(self) -> None:
        self._close(is_reset=bool(self._inbox))

    def _close(self, is_reset: bool) -> None:
        if self._is_closing or self.is_gone:
            return
        self._is_closing = True
        self._network.post(self, _RESET if is_reset else _END)
        self.loop.call_soon(self._lost, None)

    # ---- the kernel's side

    def attach(self, protocol: asyncio.Protocol) -> None:
        """A process takes the connection."""
        self._protocol = protocol
        protocol.connection_made(self)
        if self._inbox and not self._is_read_due:
            self._is_read_due = True
            self.loop.call_soon(self._read)

    def leave(self, *, is_reset: bool) -> None:
        """Its process is gone, or never took it: the kernel ends the connection."""
        if not self.is_gone:
            self._is_closing = True
            self._network.post(self, _RESET if is_reset or self._inbox else _END)
            self._forget()

    def vanish(self) -> None:
        """Its machine has lost power."""
        self.is_void = True
        self._is_closing = True
        self._forget()

    def arrive(self, item: Any) -> None:
        self._inbox.append(item)
        if self._protocol is not None and not self._is_read_due:
            self._is_read_due = True
            self.loop.call_soon(self._read)

    def _read(self) -> None:
        self._is_read_due = False
        protocol, inbox = self._protocol, self._inbox
        if self._is_closing or self.is_gone or protocol is None:
            return
        parts: list[bytes] = []
        size = 0
        while inbox and isinstance(inbox[0], bytes) and size < READ_BYTES:
            size += len(inbox[0])
            parts.append(inbox.popleft())
        if parts:
            protocol.data_received(parts[0] if len(parts) == 1 else b"".join(parts))
        elif inbox and inbox.popleft() is _END:
            if not protocol.eof_received():
                self.close()
            return
        else:
            self._is_closing = True
            self._lost(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))
            return
        if inbox and not self._is_read_due and not self._is_closing:
            self._is_read_due = True
            self.loop.call_soon(self._read)

    def _lost(self, error: Exception | None) -> None:
        if not self.is_gone and self._protocol is not None:
            self._forget()
            self._protocol.connection_lost(error)

    def _forget(self) -> None:
        self.is_gone = True
        self.host.ends.pop(self, None)


class Network:
    """Machines, and the links between each two of them, a link a direction."""

    def __init__(self, conductor: Conductor, names: list[str], chance: Chance) -> None:
        self._conductor = conductor
        self._chance = chance
        self.hosts = {name: Host(name, f"10.0.0.{number}") for number, name in enumerate(names, 1)}
        self.cuts: set[tuple[str, str]] = set()  # (from, to)
        self.slow: dict[tuple[str, str], float] = {}  # (from, to) -> seconds more
        self._by_address = {host.address: host for host in self.hosts.values()}
        self._ports = itertools.count(40_000)
        self.delivered = 0
        self.connections = 0
        self.resets = 0

    # ---- what loops ask

    async def listen(self, loop: NodeLoop, factory: Factory, port: int) -> Listener:
        host = self.hosts[loop.name]
        if host.listener is not None:
            raise OSError(errno.EADDRINUSE, "address in use")
        host.listener = Listener(host, loop, factory, port)
        return host.listener

    async def connect(
        self, loop: NodeLoop, factory: Factory, address: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        asking: asyncio.Future[End] = loop.create_future()
        source, target = self.hosts[loop.name], self._by_address[address]
        self._conductor.after(self._delay(source.name, target.name), self._ask, asking, loop, source, target, port)
        end = await asking
        protocol = factory()
        end.attach(protocol)
        return end, protocol

    def _ask(self, asking: asyncio.Future[End], loop: NodeLoop, source: Host, target: Host, port: int) -> None:
        """The first packet has arrived, or not: then nothing is ever heard of it."""
        there, back = (source.name, target.name), (target.name, source.name)
        if asking.done() or loop.is_dead or there in self.cuts or back in self.cuts or not target.is_powered:
            return
        listener = target.listener
        delay = self._delay(*back)
        if listener is None or listener.port != port:
            self._conductor.after(delay, self._refuse, asking, loop)
            return
        self.connections += 1
        mine = End(self, source, loop, (target.address, port))
        theirs = End(self, target, listener.loop, (source.address, next(self._ports)))
        mine.peer, theirs.peer = theirs, mine
        listener.loop.call_soon(listener.accept, theirs)
        self._conductor.after(delay, self._answer, asking, loop, mine)

    def _refuse(self, asking: asyncio.Future[End], loop: NodeLoop) -> None:
        if not loop.is_dead:
            loop.call_soon(_fail, asking, ConnectionRefusedError(errno.ECONNREFUSED, "connection refused"))

    def _answer(self, asking: asyncio.Future[End], loop: NodeLoop, mine: End) -> None:
        if mine.is_gone:
            return
        if loop.is_dead:
            mine.leave(is_reset=True)
        else:
            loop.call_soon(_give, asking, mine)

    # ---- bytes on their way

    def post(self, end: End, item: Any) -> None:
        """Send bytes, or an end.  Bytes may arrive in pieces."""
        if isinstance(item, bytes) and len(item) > 1 and self._chance.random() < 0.02:
            at = self._chance.randrange(1, len(item))
            self._post(end, item[:at])
            item = item[at:]
        self._post(end, item)

    def _post(self, end: End, item: Any) -> None:
        arrival = max(end.last_arrival, self._conductor.now + self._delay(end.host.name, end.peer.host.name))
        end.last_arrival = arrival
        end.outgoing.append((arrival, item))
        if isinstance(item, bytes):
            end.outgoing_bytes += len(item)
        self._pump_at(end, end.outgoing[0][0])

    def _pump_at(self, end: End, when: float) -> None:
        if not end.is_pumping:
            end.is_pumping = True
            self._conductor.at(when, self._pump, end)

    def _pump(self, end: End) -> None:
        end.is_pumping = False
        source, target = end.host.name, end.peer.host.name
        if (source, target) in self.cuts:
            return  # until `heal`
        now, outgoing, peer = self._conductor.now, end.outgoing, end.peer
        while outgoing and outgoing[0][0] <= now:
            _, item = outgoing.popleft()
            if isinstance(item, bytes):
                end.outgoing_bytes -= len(item)
            if not peer.is_gone:
                self.delivered += 1
                peer.arrive(item)
            elif not end.is_gone and item is not _RESET and (not peer.is_void or peer.host.is_powered):
                self.resets += 1
                self._conductor.after(self._delay(target, source), self._reset, end)
        if outgoing:
            self._pump_at(end, outgoing[0][0])

    def _reset(self, end: End) -> None:
        if not end.is_gone:
            end.arrive(_RESET)

    def _delay(self, source: str, target: str) -> float:
        chance = self._chance
        seconds = 0.0002 + 0.0006 * chance.random()
        if chance.random() < 0.01:
            seconds += 0.02 * chance.random()
        return seconds + self.slow.get((source, target), 0.0)

    # ---- what happens to it

    def cut(self, source: str, target: str) -> None:
        """Nothing passes from one to the other until `heal`."""
        self.cuts.add((source, target))

    def heal(self) -> None:
        """All links are as they should be; what was held leaves within a retransmission."""
        self.cuts.clear()
        self.slow.clear()
        for host in self.hosts.values():
            for end in list(host.ends):
                self._resume(end)
                self._resume(end.peer)  # it may be gone, and its last words held

    def _resume(self, end: End) -> None:
        if end.outgoing and not end.is_pumping:
            retried = self._conductor.now + 0.2 * self._chance.random()
            self._pump_at(end, max(retried, end.outgoing[0][0]))

    def sever(self, one: str, other: str) -> None:
        """The connections between two hosts break, noticed on both sides (as when a firewall forgets them)."""
        for end in list(self.hosts[one].ends):
            if end.peer.host.name == other:
                end.arrive(_RESET)
                if not end.peer.is_gone:
                    end.peer.arrive(_RESET)

    def kill(self, name: str) -> None:
        """The process is gone; its kernel speaks for it."""
        host = self.hosts[name]
        host.listener = None
        for end in list(host.ends):
            end.leave(is_reset=self._chance.random() < 0.3)

    def cut_power(self, name: str) -> None:
        """The machine is gone, without a word."""
        host = self.hosts[name]
        host.listener = None
        host.is_powered = False
        for end in list(host.ends):
            end.vanish()
            if self._chance.random() < 0.5:
                end.outgoing.clear()
                end.outgoing_bytes = 0

    def boot(self, name: str) -> None:
        self.hosts[name].is_powered = True


def _give(asking: asyncio.Future[End], end: End) -> None:
    if asking.done():
        end.leave(is_reset=True)
    elif end.is_gone:
        asking.set_exception(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))
    else:
        asking.set_result(end)


def _fail(asking: asyncio.Future[End], error: Exception) -> None:
    if not asking.done():
        asking.set_exception(error)
