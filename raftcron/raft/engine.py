"""The replicated log of one node: `Engine` is `ports.Log` over the mended PySyncObj; it knows no job and no run.

Here journal, transport, engine (seam.py), elections, membership, proposals and reads are joined, on one loop:

    a message or a proposal  ->  `_kick`  ->  one `_step` in the loop's next turn  ->  messages, futures
    a heartbeat's timer      ->  `_beat`  ->  the same, at the latest

The engine is given no callbacks and forwards nothing: a command is proposed on the leader's node or not at all, and
comes back when this node applies it.  What the engine raises, other than a peer's bad message, ends the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from raftcron import ports
from raftcron.clock import Clock
from raftcron.errors import ConfigurationError, DamagedError, FatalError, RaftcronError, TooLargeError, UnavailableError
from raftcron.ports import Applied, LogStatus
from raftcron.raft import membership, proposals
from raftcron.raft.device import Device
from raftcron.raft.election import Elections, parse_pre_vote
from raftcron.raft.guard import BadMessageError
from raftcron.raft.handover import hand_over
from raftcron.raft.journal import Journal
from raftcron.raft.membership import Membership
from raftcron.raft.proposals import Envelope, Proposals
from raftcron.raft.reads import Reads
from raftcron.raft.host import Host, Role
from raftcron.raft.scribe import ForkedScribe, Scribe
from raftcron.raft.seam import Core
from raftcron.raft.settings import RaftSettings, Random
from raftcron.raft.transport import Handlers, Hello, Transport

logger = logging.getLogger(__name__)

READ_SECONDS = 2.0  # of one linearizable read, from question to applied
OWN_KINDS = frozenset({"raft", "prevote", "prevoted", "round", "echo", "read", "index"})
COMPLAINT_SECONDS = 3.0  # between two log lines about the same standing trouble

_P = ParamSpec("_P")


def _rim(method: Callable[Concatenate[Engine, _P], None]) -> Callable[Concatenate[Engine, _P], None]:
    """Around everything that the loop calls: nothing runs after the end, and what is raised is the end."""

    @wraps(method)
    def guarded(self: Engine, /, *arguments: _P.args, **named: _P.kwargs) -> None:
        if self._is_over:
            return
        try:
            method(self, *arguments, **named)
        except Exception as error:
            self._die(error)

    return guarded


class Engine:
    """`ports.Log`.  Used on one loop; `fatal(error)` is called once, and must end the process."""

    def __init__(
        self,
        settings: RaftSettings,
        machine: ports.StateMachine,
        clock: Clock,
        device: Device,
        rng: Random,
        fatal: Callable[[BaseException], None],
        scribe: Scribe | None = None,
        make_transport: Callable[..., Transport] = Transport,
    ) -> None:
        self.incarnation = 0  # from `start` on, at least 1
        self.bad_messages: Counter[str] = Counter()  # by peer: dropped, because no peer of this version sends them
        self._settings = settings
        self._name = settings.name
        self._others = sorted(set(settings.peers) - {settings.name})
        self._machine = machine
        self._clock = clock
        self._device = device
        self._rng = rng
        self._fatal = fatal
        self._scribe = scribe or ForkedScribe()
        self._make_transport = make_transport
        self._is_over = True  # not started yet, stopped or dead
        self._is_kicked = False
        self._has_received = False
        self._beating: asyncio.TimerHandle | None = None
        self._complained_at: dict[str, float] = {}
        self._lives: dict[str, int] = {}  # peer -> incarnation, as last heard

        self._seq = 0
        self._epoch = machine.epoch  # as of the last entry that has applied
        self._leading_epoch: int | None = None
        self._leadership_seq: int | None = None  # number of our leadership entry, while it is on its way
        self._proposals = Proposals()
        self._hold: asyncio.Future[None] | None = None  # proposals wait while the lead is being handed over
        self._is_ready = False
        self._getting_ready: asyncio.Task[None] | None = None  # from `start` on

        self._handlers: dict[str, Callable[[str, Any], None]] = {}
        self._leadership_handlers: list[Callable[[int | None], None]] = []
        self._own_kinds: dict[str, Callable[[str, Any], None]] = {}

    # ---- start and end -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the journal, join the others.  Returns before there is a leader: see `wait_ready`.

        Raises ConfigurationError, DamagedError, NewerVersionError: the node cannot run like this.
        """
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._journal = Journal.open(settings.data_dir / "journal", self._device)
        try:
            identity = self._journal.begin(self._name, self._rng.randbytes(8).hex())
            self.incarnation = self._journal.next_incarnation()
            self._membership = Membership(self._name, settings.peers, identity.disk_id, identity.cluster_id)
            self._core = Core(
                self._name,
                self._journal,
                Host(
                    transmit=self._transmit,
                    may_vote=self._may_vote,
                    voted=self._voted,
                    heard_leader=self._heard_leader,
                    received=self._received,
                    offer=lambda _peer: None,
                    offered=lambda _peer, _offer: None,
                    elected=self._propose_leadership,
                    role_changed=self._role_changed,
                    apply=self._apply,
                    applied=self._applied,
                ),
                self._clock,
                heartbeat_seconds=settings.heartbeat_seconds,
                fallback_seconds=settings.leader_fallback,
                snapshot_index=0,
            )
            self._core.set_members(self._others, [])
            self._recall_formation()
            self._transport = self._make_transport(
                hello=self._hello,
                listen=settings.listen,
                peers={name: settings.peers[name] for name in self._others},
                secret=settings.secret,
                handler=Handlers(
                    self._on_connected,
                    self._on_disconnected,
                    self._on_refused,
                    self._on_turned_away,
                    self._on_message,
                    self._on_batch_end,
                ),
                clock=self._clock,
                admit=self._admit,
                draw=self._rng.randbytes,
            )
            self._elections = Elections(
                self._name,
                self._others,
                self._core,
                send=self._transport.send,
                connected=self._transport.connected,
                may_vote=self._may_vote,
                kick=self._kick,
                run=self._run,
                loop=self._loop,
                clock=self._clock,
                draw=self._rng.random,
                timeout_seconds=settings.election_timeout,
            )
            self._reads = Reads(
                self._name,
                self._others,
                self._core,
                send=self._transport.send,
                connected=self._transport.connected,
                may_confirm=lambda: self._leading_epoch is not None,
                loop=self._loop,
            )
            self._own_kinds = self._reads.kinds | {"prevote": self._on_pre_vote, "prevoted": self._elections.answered}
            self._is_over = False  # peers may come before `start` of the transport returns
            await self._transport.start()
        except BaseException:
            self._is_over = True
            self._journal._destroy()
            raise
        self._elections.start()
        self._complained_at["formation"] = self._clock.monotonic() - 2  # the others may be starting too
        self._beat()
        if not self._others and self._may_vote():
            self._elections.soon()
        self._getting_ready = self._loop.create_task(self._get_ready())

    async def stop(self) -> None:
        """End at once, without handing over (`transfer` does that).  What is pending has an unknown outcome."""
        if self._getting_ready is None:
            return
        self._end()
        self._getting_ready.cancel()
        await asyncio.gather(self._getting_ready, return_exceptions=True)
        await self._transport.stop()
        self._journal._destroy()

    def _end(self) -> None:
        self._is_over = True
        self._elections.stop()
        if self._beating is not None:
            self._beating.cancel()
        self._leading_epoch = None
        self._proposals.abandon()
        self._release()
        self._reads.leadership_changed()

    def _die(self, error: Exception) -> None:
        if self._is_over:
            return
        if not isinstance(error, FatalError):
            cause, error = error, FatalError(f"the log of node {self._name} failed: {error!r}; a defect: report it")
            error.__cause__ = cause
        trace = None if isinstance(error, ConfigurationError) else error  # a setting is mended, not debugged
        logger.critical("raft_fatal node=%s error=%s", self._name, error, exc_info=trace)
        self._end()
        self._fatal(error)

    async def _get_ready(self) -> None:
        while True:
            try:
                await self.read_index()
                return
            except UnavailableError:
                await asyncio.sleep(self._settings.heartbeat_seconds)

    @property
    def leading_epoch(self) -> int | None:
        """See `ports.Log`."""
        return self._leading_epoch

    @property
    def is_ready(self) -> bool:
        """Whether this node has applied all that was committed at some instant after this process began."""
        return self._is_ready

    async def wait_ready(self) -> None:
        """Returns once `is_ready`.  Not before `start`."""
        assert self._getting_ready is not None
        await asyncio.shield(self._getting_ready)

    # ---- turning -------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        """One step in the loop's next turn, however many ask for it."""
        if not self._is_kicked:
            self._is_kicked = True
            self._loop.call_soon(self._step)

    @_rim
    def _step(self) -> None:
        self._is_kicked = False
        self._core.step()
        if self._core.has_more_to_apply:
            self._kick()

    @_rim
    def _beat(self) -> None:
        self._beating = self._loop.call_later(self._settings.heartbeat_seconds, self._beat)
        self._proposals.expire(self._clock.monotonic())
        self._reads.repeat()
        if self._core.is_leader:
            self._propose_leadership()
        elif not self._may_vote():
            self._complain("formation", self._why_not_formed())
        self._kick()

    def _why_not_formed(self) -> str:
        waiting = [
            f"{peer} ({self._transport.refusals[peer]})" if peer in self._transport.refusals else peer
            for peer in self._membership.missing()
        ]
        return f"waiting for {', '.join(waiting)} to form a cluster"

    def _complain(self, about: str, text: str) -> None:
        now = self._clock.monotonic()
        if now - self._complained_at.get(about, -COMPLAINT_SECONDS) >= COMPLAINT_SECONDS:
            self._complained_at[about] = now
            logger.warning("raft_%s node=%s %s", about, self._name, text)

    # ---- ports.Log: proposing ------------------------------------------------------------------------------------

    async def propose(self, body: bytes, epoch: int) -> Applied:
        """See `ports.Log`.  Raises TooLargeError too, beyond `max_command_bytes`: certainly not written."""
        if len(body) > self._settings.max_command_bytes:
            raise TooLargeError(
                f"a command of {len(body)} bytes is over the limit of {self._settings.max_command_bytes}: split it"
            )
        while self._hold is not None:
            await asyncio.shield(self._hold)
        if self._leading_epoch is None:
            raise UnavailableError(self._why_not_leading())
        if epoch != self._leading_epoch:
            raise UnavailableError(
                f"the command was made under epoch {epoch}, now is {self._leading_epoch}; make it anew"
            )
        if self._proposals.is_full:
            raise UnavailableError("too many commands are in flight on this node; retry a little later")
        future: asyncio.Future[Applied] = self._loop.create_future()
        seq = self._append(body, epoch)
        self._proposals.add(seq, future, epoch, len(body), self._clock.monotonic() + self._settings.request_timeout)
        self._kick()
        return await future

    def _append(self, body: bytes, epoch: int) -> int:
        self._seq += 1
        self._core.append(proposals.encode(Envelope(self._name, self.incarnation, self._seq, epoch, body)))
        return self._seq

    def _why_not_leading(self) -> str:
        if self._is_over:
            return f"node {self._name} is not running"
        if self._core.is_leader:
            return f"node {self._name} has just been elected and is not ready to lead yet; retry"
        if (leader := self._elections.leader) is not None:
            return f"node {self._name} does not lead; the leader is {leader}"
        return "there is no leader now; retry"

    # ---- ports.Log: reading --------------------------------------------------------------------------------------

    async def read_index(self) -> int:
        """See `ports.Log`."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                while (index := await self._reads.index()) is None:
                    if self._is_over:
                        raise UnavailableError(self._why_not_leading())
                    await asyncio.sleep(self._settings.heartbeat_seconds / 4)
                await self._reads.until_applied(index)
        except TimeoutError:
            raise UnavailableError(f"no majority confirmed the lead within {READ_SECONDS:g} s; retry") from None
        self._is_ready = True
        return index

    # ---- ports.Log: the rest -------------------------------------------------------------------------------------

    def status(self) -> LogStatus:
        """See `ports.Log`.  Not before `start`."""
        core = self._core
        members = []
        for name, (host, port) in sorted(self._settings.peers.items()):
            is_self = name == self._name
            matched: int | None = None
            if core.is_leader:
                matched = core.last_index if is_self else core.match_index(name)
            members.append(ports.Member(name, f"{host}:{port}", is_self or self._transport.connected(name), matched))
        return LogStatus(
            cluster_id=self._membership.cluster_id,
            role=_ROLES[core.role],
            leader=self._elections.leader,
            term=core.term,
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            last_index=core.last_index,
            leading_epoch=self._leading_epoch,
            members=tuple(members),
        )

    @property
    def refusals(self) -> Mapping[str, str]:
        """Peer -> why there is no connection to it, where it is known."""
        return self._transport.refusals

    def send(self, peer: str, kind: str, message: Any) -> bool:
        """See `ports.Log`."""
        return not self._is_over and self._transport.send(peer, kind, message)

    def on_message(self, kind: str, handler: Callable[[str, Any], None]) -> None:
        """See `ports.Log`.  What a handler raises is logged, and ends nothing."""
        if kind in OWN_KINDS or kind in self._handlers:
            raise ValueError(f"messages of kind {kind!r} have a handler already")
        self._handlers[kind] = handler

    def on_leadership(self, handler: Callable[[int | None], None]) -> None:
        """See `ports.Log`.  What a handler raises ends the process."""
        self._leadership_handlers.append(handler)

    async def transfer(self, to: str | None = None) -> None:
        """See `ports.Log` and handover.py; proposals wait meanwhile.  Raises UnavailableError if this node leads on."""
        if not self._core.is_leader or self._hold is not None:
            raise UnavailableError(self._why_not_leading() if self._hold is None else "the lead is being handed over")
        if to is not None and to not in self._others:
            raise UnavailableError(f"{to} is not another member; the others are {', '.join(self._others) or 'none'}")
        self._hold = self._loop.create_future()
        try:
            await hand_over(
                self._core,
                [to] if to is not None else self._others,
                connected=self._transport.connected,
                stand_seconds=self._settings.election_timeout[0] / 2,
                loop=self._loop,
            )
        finally:
            self._release()

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.set_result(None)
            self._hold = None

    # ---- what the transport tells ----------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        identity = self._journal.identity
        return Hello(self._name, identity.disk_id, identity.cluster_id, self.incarnation, self._journal.is_empty)

    def _admit(self, hello: Hello) -> str | None:
        connected = self._transport.hello_of(hello.name)
        reason = self._membership.admit(hello, None if connected is None else connected.disk_id)
        if reason is not None:
            self._complain("refused", reason)
            clusters = {hello.cluster_id, self._membership.cluster_id}
            if len(clusters) == 2 and None not in clusters:
                self._on_turned_away(hello.name, reason)  # of two clusters each is a stranger to the other
        return reason

    @_rim
    def _on_connected(self, peer: str) -> None:
        hello = self._transport.hello_of(peer)
        if hello is None:
            return
        could_vote = self._may_vote()
        self._membership.heard(hello)
        before = self._lives.get(peer, hello.incarnation)
        self._lives[peer] = hello.incarnation
        self._core.connected(peer)
        if before != hello.incarnation:
            self._elections.reborn(peer)
        else:
            self._elections.back(peer)
        if not could_vote and self._may_vote():
            self._elections.soon()
        if self._core.is_leader:
            self._propose_leadership()
        self._kick()

    @_rim
    def _on_disconnected(self, peer: str) -> None:
        self._core.disconnected(peer)
        self._elections.lost(peer)

    @_rim
    def _on_refused(self, peer: str) -> None:
        self._elections.refused(peer)

    @_rim
    def _on_turned_away(self, peer: str, reason: str) -> None:
        self._membership.turned_away(peer, reason)

    @_rim
    def _on_message(self, peer: str, kind: str, message: Any) -> None:
        try:
            if kind == "raft":
                self._core.receive(peer, message)
                self._has_received = True
            elif kind in self._own_kinds:
                self._own_kinds[kind](peer, message)
            elif kind in self._handlers:
                self._hand_out(self._handlers[kind], peer, message)
            else:
                raise BadMessageError(f"kind: {kind!r:.40} is not known")
        except BadMessageError as error:
            self.bad_messages[peer] += 1
            self._complain(f"bad_message_from_{peer}", f"kind={kind!r:.40} dropped: {error}")

    def _hand_out(self, handler: Callable[[str, Any], None], peer: str, message: Any) -> None:
        try:
            handler(peer, message)
        except Exception:
            logger.exception("raft_handler_failed node=%s peer=%s", self._name, peer)

    @_rim
    def _on_batch_end(self) -> None:
        if self._has_received:
            self._has_received = False
            self._core.flush()
            self._kick()

    def _on_pre_vote(self, peer: str, message: Any) -> None:
        self._elections.asked(peer, parse_pre_vote(message))

    # ---- what the engine tells (seam.Host) -------------------------------------------------------------------------

    def _transmit(self, peer: str, message: dict[str, Any]) -> bool:
        return self._transport.send(peer, "raft", message)

    def _may_vote(self) -> bool:
        return self._membership.may_vote(self._journal.is_empty)

    def _voted(self) -> None:
        self._elections.rest()

    def _heard_leader(self) -> None:
        self._elections.heard_leader()

    def _role_changed(self, role: Role) -> None:
        logger.info("raft_role node=%s role=%s term=%d", self._name, role.name.lower(), self._core.term)
        self._reads.leadership_changed()
        if role is Role.FOLLOWER:
            self._elections.rest()
        if role is not Role.LEADER:
            self._leadership_seq = None
            if self._leading_epoch is not None:
                self._leading_epoch = None
                self._tell_leadership(None)

    def _propose_leadership(self) -> None:
        """The first entries of a term: the formation if the cluster has none, then our leadership entry."""
        if self._leadership_seq is not None or self._leading_epoch is not None:
            return
        if self._membership.formation is None:
            if unknown := self._membership.unknown():
                self._complain("formation", f"leads, and waits for {', '.join(unknown)} to form a cluster")
                return
            formation = self._membership.propose(self._rng.randbytes(8).hex())
            self._core.append(membership.encode_formation(formation))
            self._membership.see(formation)
        self._leadership_seq = self._append(self._machine.leadership(self._core.term), self._epoch)
        self._kick()

    def _received(self, _begin: int) -> None:
        if self._membership.cluster_id is None:
            self._look_for_formation()

    def _recall_formation(self) -> None:
        """At start: what had applied before holds from the first greeting on."""
        self._look_for_formation()
        if self._membership.cluster_id is not None:
            if (formation := self._membership.formation) is None:
                raise DamagedError(
                    f"the journal in {self._settings.data_dir} belongs to cluster {self._membership.cluster_id}, but "
                    f"its log lacks the formation entry: keep the directory, and run: raftcron cluster replace "
                    f"{self._name}"
                )
            self._membership.apply(formation)

    def _look_for_formation(self) -> None:
        """Before the formation has applied the log holds next to nothing else, and after it stands near the front."""
        for place in range(len(self._journal)):
            command = self._journal[place][0]
            if command[:1] == membership.FORMATION:
                self._membership.see(membership.decode_formation(command))
                return
        self._membership.see(None)

    def _apply(self, index: int, term: int, command: bytes) -> None:
        kind = command[:1]
        if kind == membership.FORMATION:
            self._apply_formation(index, command)
            return
        if kind != proposals.COMMAND:
            raise proposals.newer(index, f"of kind {kind.hex()}")
        envelope = proposals.decode(index, command)
        try:
            outcome = self._machine.apply(index, envelope.body)
        except RaftcronError:
            raise
        except Exception as error:
            raise FatalError(
                f"entry {index} cannot be applied: {error!r}. Every node would fail on it alike: stop, keep the data "
                f"directories, and report it"
            ) from error
        if envelope.node == self._name and envelope.incarnation == self.incarnation:
            self._proposals.resolve(envelope.seq, index, outcome)
            if envelope.seq == self._leadership_seq and term == self._core.term:
                self._leadership_seq = None
                self._leading_epoch = self._machine.epoch
                self._tell_leadership(self._leading_epoch)
        if self._machine.epoch != self._epoch:
            self._epoch = self._machine.epoch
            self._proposals.void_below(self._epoch)

    def _apply_formation(self, index: int, command: bytes) -> None:
        formation = membership.decode_formation(command)
        self._membership.apply(formation)
        self._journal.set_cluster_id(formation.cluster_id)
        logger.info("raft_formed node=%s cluster=%s index=%d", self._name, formation.cluster_id, index)

    def _applied(self, index: int) -> None:
        self._machine.applied(index)
        self._reads.applied(index)

    def _tell_leadership(self, epoch: int | None) -> None:
        for handler in self._leadership_handlers:
            self._loop.call_soon(self._run, handler, epoch)

    @_rim
    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        function(*arguments)


_ROLES = {Role.FOLLOWER: ports.Role.FOLLOWER, Role.CANDIDATE: ports.Role.CANDIDATE, Role.LEADER: ports.Role.LEADER}
