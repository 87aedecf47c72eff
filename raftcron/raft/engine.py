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
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from raftcron import ports
from raftcron.clock import Clock
from raftcron.errors import ConfigurationError, FatalError, UnavailableError
from raftcron.ports import Applied, LogStatus, Restoring
from raftcron.raft import proposals
from raftcron.raft.compaction import Compaction, check_cluster, restore
from raftcron.raft.complaints import Troubles
from raftcron.raft.configuration import Address, is_configuration
from raftcron.raft.device import Device
from raftcron.raft.election import Elections, parse_pre_vote
from raftcron.raft.handover import hand_over
from raftcron.raft.host import Host, Role
from raftcron.raft.inbox import Inbox
from raftcron.raft.journal import Journal
from raftcron.raft.leadership import Leadership
from raftcron.raft.membership import Ground, Membership
from raftcron.raft.reads import Reads
from raftcron.raft.roster import Roster
from raftcron.raft.scribe import Scribe, for_this_system
from raftcron.raft.seam import Core
from raftcron.raft.settings import RaftSettings, Random
from raftcron.raft.snapshot import SnapshotInfo, SnapshotStore
from raftcron.raft.transport import Handlers, Hello, Transport

logger = logging.getLogger(__name__)

READ_SECONDS = 2.0  # of one linearizable read, from question to applied

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
        self._own_lives = 0  # of this directory
        self._settings = settings
        self._name = settings.name
        self._others = sorted(set(settings.peers) - {settings.name})
        self._machine = machine
        self._clock = clock
        self._device = device
        self._rng = rng
        self._fatal = fatal
        self._scribe = scribe or for_this_system()
        self._make_transport = make_transport
        self._is_over = True  # not started yet, stopped or dead
        self._is_kicked = False
        self._has_received = False
        self._is_handing_over = False
        self._beating: asyncio.TimerHandle | None = None
        self._troubles = Troubles(self._name, clock)
        self._inbox = Inbox(self._name, self._troubles.say)
        self._lives: dict[str, int] = {}  # peer -> incarnation, as last heard

        self._is_ready = False
        self._getting_ready: asyncio.Task[None] | None = None  # from `start` on

        self._leadership_handlers: list[Callable[[int | None], None]] = []

    # ---- start and end -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the journal, join the others.  Returns before there is a leader: see `wait_ready`.

        Raises ConfigurationError, DamagedError, NewerVersionError: the node cannot run like this.
        """
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._journal = Journal.open(
            settings.data_dir / "journal", self._device, segment_bytes=settings.compaction.segment_bytes
        )
        try:  # from here on the directory is this process's alone
            self._store = SnapshotStore.open(settings.data_dir / "snapshots", self._device, self._name)
            identity = self._journal.begin(self._name, self._rng.randbytes(8).hex())
            self._own_lives = self._journal.next_incarnation()
            snapshot = restore(self._store, self._journal, self._machine)
            self._membership = Membership(self._name, settings.peers, identity.disk_id, identity.cluster_id)
            self._leadership = Leadership(
                self._name,
                self._machine,
                lives=lambda: self.incarnation,
                why_not=self._why_not_leading,
                kick=self._kick,
                changed=self._tell_leadership,
                clock=self._clock,
                loop=self._loop,
                max_command_bytes=settings.max_command_bytes,
                request_seconds=settings.request_timeout,
            )
            self._roster = Roster(
                self._name,
                self._membership,
                self._journal,
                spread=self._spread,
                hello_of=lambda peer: self._transport.hello_of(peer),  # noqa: PLW0108 (it is made below)
                is_confirmed=lambda: self._leadership.epoch is not None,
                kick=self._kick,
                draw=self._rng.randbytes,
                complain=self._troubles.say,
                send=lambda peer, kind, message: self._transport.send(peer, kind, message),  # noqa: PLW0108
                loop=self._loop,
            )
            self._roster.recall(
                None if snapshot is None else (snapshot.index, snapshot.configuration), str(settings.data_dir)
            )
            self._core = Core(
                self._name,
                self._journal,
                Host(
                    transmit=self._transmit,
                    counts=self._counts,
                    may_vote=self._may_vote,
                    may_stand=self._may_stand,
                    voted=lambda: self._elections.rest(),  # noqa: PLW0108 (it is made below)
                    heard_leader=lambda: self._elections.heard_leader(),  # noqa: PLW0108
                    received=self._roster.received,
                    offer=lambda peer: self._compaction.offer(peer),  # noqa: PLW0108 (it is made below)
                    offered=lambda peer, offer: self._compaction.offered(peer, offer),  # noqa: PLW0108
                    elected=self._propose_leadership,
                    role_changed=self._role_changed,
                    apply=self._apply,
                    applied=self._applied,
                ),
                self._clock,
                heartbeat_seconds=settings.heartbeat_seconds,
                fallback_seconds=settings.leader_fallback,
                snapshot_index=0 if snapshot is None else snapshot.index,
            )
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
                tls=settings.tls,
            )
            self._elections = Elections(
                self._name,
                self._others,
                self._core,
                send=self._transport.send,
                connected=self._transport.connected,
                counts=self._counts,
                may_vote=self._may_vote,
                may_stand=self._may_stand,
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
                counts=self._counts,
                may_confirm=lambda: self._leadership.epoch is not None,
                loop=self._loop,
            )
            self._compaction = Compaction(
                settings.compaction,
                self._store,
                self._scribe,
                self._journal,
                self._core,
                self._machine,
                cluster_id=lambda: self._membership.cluster_id,
                configuration=self._membership.encoded,
                peers=lambda: self._others,
                send=self._transport.send,
                connected=self._transport.connected,
                install=self._install,
                run=self._run,
                loop=self._loop,
                clock=self._clock,
            )
            self._inbox.own = {
                **self._reads.kinds,
                **self._compaction.kinds,
                "raft": self._on_raft,
                "members": self._roster.on_members,
                "prevote": self._on_pre_vote,
                "prevoted": self._elections.answered,
            }
            self._roster.tell()
            self._is_over = False  # peers may come before `start` of the transport returns
            await self._transport.start()
        except BaseException:
            self._is_over = True
            self._journal._destroy()
            raise
        self._elections.start()
        self._troubles.put_off("formation", 1.0)  # the others may be starting too
        self._beat()
        if not self._others and self._may_stand():
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
        self._compaction.stop()
        if self._beating is not None:
            self._beating.cancel()
        self._leadership.end()
        self._roster.leads_no_more()
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
        return self._leadership.epoch

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
        self._leadership.expire()
        self._reads.repeat()
        self._compaction.beat()
        if self._core.is_leader:
            self._propose_leadership()
            self._roster.beat(self._core)
        elif self._membership.newest is None and not self._may_vote():
            self._troubles.say("formation", self._why_not_formed())
        self._kick()

    def _why_not_formed(self) -> str:
        waiting = [
            f"{peer} ({self._transport.refusals[peer]})" if peer in self._transport.refusals else peer
            for peer in self._membership.missing()
        ]
        return f"waiting for {', '.join(waiting)} to form a cluster"

    # ---- ports.Log: proposing ------------------------------------------------------------------------------------

    async def propose(self, body: bytes, epoch: int) -> Applied:
        """See `ports.Log`.  Raises TooLargeError too, beyond `max_command_bytes`: certainly not written."""
        return await self._leadership.propose(self._core, body, epoch)

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
        return LogStatus(
            cluster_id=self._membership.cluster_id,
            role=_ROLES[core.role],
            leader=self._elections.leader,
            term=core.term,
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            last_index=core.last_index,
            leading_epoch=self._leadership.epoch,
            members=self._roster.members(core, self._transport.connected),
        )

    @property
    def refusals(self) -> Mapping[str, str]:
        """Peer -> why there is no connection to it, where it is known."""
        return self._transport.refusals

    @property
    def bad_messages(self) -> Mapping[str, int]:
        """By peer: dropped, because no peer of this version sends them."""
        return self._inbox.bad_messages

    def send(self, peer: str, kind: str, message: Any) -> bool:
        """See `ports.Log`."""
        return not self._is_over and self._transport.send(peer, kind, message)

    def on_message(self, kind: str, handler: Callable[[str, Any], None]) -> None:
        """See `ports.Log`.  What a handler raises is logged, and ends nothing."""
        self._inbox.serve(kind, handler)

    def on_leadership(self, handler: Callable[[int | None], None]) -> None:
        """See `ports.Log`.  What a handler raises ends the process."""
        self._leadership_handlers.append(handler)

    async def add(self, name: str, raft: Address, http: str, lives: int) -> int:
        """See `ports.Log`."""
        return await self._change(lambda ground: self._membership.add(name, raft, http, lives, ground))

    async def remove(self, name: str) -> int:
        """See `ports.Log`."""
        return await self._change(lambda ground: self._membership.remove(name, ground))

    async def replace(self, name: str, raft: Address | None, http: str | None, lives: int) -> int:
        """See `ports.Log`."""
        return await self._change(lambda ground: self._membership.replace(name, raft, http, lives, ground))

    async def _change(self, make: Callable[[Ground], bytes | None]) -> int:
        if self._leadership.epoch is None:
            raise UnavailableError(self._why_not_leading())
        return await self._roster.change(self._core, make, self._settings.request_timeout)

    async def transfer(self, to: str | None = None) -> None:
        """See `ports.Log` and handover.py.  Raises UnavailableError if this node leads on."""
        if not self._core.is_leader:
            raise UnavailableError(self._why_not_leading())
        if self._is_handing_over:
            raise UnavailableError("the lead is being handed over")
        voters = [name for name in self._membership.voters if name != self._name]
        if to is not None and to not in voters:
            raise UnavailableError(f"{to} is not another voter; the others are {', '.join(voters) or 'none'}")
        self._is_handing_over = True
        try:
            await hand_over(
                self._core,
                [to] if to is not None else voters,
                connected=self._transport.connected,
                hold=self._leadership.held,
                epoch=lambda: self._leadership.applied_epoch,
                stand=lambda: self._run(self._elections.soon),
                confirm_seconds=self._settings.election_timeout[0] / 2,
                loop=self._loop,
            )
        finally:
            self._is_handing_over = False

    # ---- what the transport tells ----------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        identity = self._journal.identity
        return Hello(self._name, identity.disk_id, identity.cluster_id, self._own_lives, self._journal.is_empty)

    def _admit(self, hello: Hello) -> str | None:
        connected = self._transport.hello_of(hello.name)
        reason = self._membership.admit(hello, None if connected is None else connected.disk_id)
        if reason is not None:
            self._troubles.say("refused", reason)
            clusters = {hello.cluster_id, self._membership.cluster_id}
            if len(clusters) == 2 and None not in clusters:
                self._on_turned_away(hello.name, reason)  # of two clusters each is a stranger to the other
        return reason

    @_rim
    def _on_connected(self, peer: str) -> None:
        hello = self._transport.hello_of(peer)
        if hello is None:
            return
        could_stand = self._may_stand()
        self._membership.heard(hello)
        before = self._lives.get(peer, hello.incarnation)
        self._lives[peer] = hello.incarnation
        self._core.connected(peer)
        self._compaction.disconnected(peer)  # what was asked for on a former connection does not come
        self._reads.connected(peer)
        self._roster.greet(peer)
        if before != hello.incarnation:
            self._elections.reborn(peer)
        else:
            self._elections.back(peer)
        if not could_stand and self._may_stand():
            self._elections.soon()
        if self._core.is_leader:
            self._propose_leadership()
        self._kick()

    @_rim
    def _on_disconnected(self, peer: str) -> None:
        self._core.disconnected(peer)
        self._compaction.disconnected(peer)
        self._elections.lost(peer)

    @_rim
    def _on_refused(self, peer: str) -> None:
        self._elections.refused(peer)

    @_rim
    def _on_turned_away(self, peer: str, reason: str) -> None:
        self._membership.turned_away(peer, reason)

    @_rim
    def _on_message(self, peer: str, kind: str, message: Any) -> None:
        self._inbox.take(peer, kind, message)

    def _on_raft(self, peer: str, message: Any) -> None:
        self._core.receive(peer, message)
        self._has_received = True

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

    def _counts(self, peer: str) -> bool:
        hello = self._transport.hello_of(peer)
        if hello is None or self._membership.counts(hello):
            return hello is not None
        if (reason := self._membership.gone(hello)) is not None:
            self._troubles.say("seats", f"what {peer} votes and confirms does not count: {reason}")
        return False

    def _may_vote(self) -> bool:
        journal = self._journal
        return self._membership.may_vote(journal.is_empty, journal.getVotedForNodeId() is not None)

    def _may_stand(self) -> bool:
        journal = self._journal
        return self._membership.may_stand(journal.is_empty, journal.getVotedForNodeId() is not None)

    def _role_changed(self, role: Role) -> None:
        logger.info("raft_role node=%s role=%s term=%d", self._name, role.name.lower(), self._core.term)
        self._reads.leadership_changed()
        if role is Role.FOLLOWER:
            self._elections.rest()
        if role is not Role.LEADER:
            self._leadership.ended()
            self._roster.leads_no_more()

    def _propose_leadership(self) -> None:
        """The first entries of a term: the formation if the cluster has none, then our leadership entry."""
        if not self._leadership.has_begun and self._roster.form(self._core):
            self._leadership.begin(self._core)

    def _spread(self, voters: list[str], learners: list[str], addresses: dict[str, Address]) -> None:
        """Who the members are, from now on."""
        self.incarnation = self._own_lives + self._membership.lives
        self._others = [name for name in addresses if name != self._name]
        others = [name for name in voters if name != self._name]
        new = self._core.set_members(others, [name for name in learners if name != self._name])
        self._elections.set_voters(voters)
        self._reads.set_voters(voters)
        peers = {name: addresses[name] for name in self._others}
        strange = [
            name for name in peers if (hello := self._transport.hello_of(name)) and self._membership.admit(hello, None)
        ]
        self._transport.set_peers({name: address for name, address in peers.items() if name not in strange})
        self._transport.set_peers(peers)  # whose directory lost its seat may come again, and is told so
        for name in new:
            if self._transport.connected(name):
                self._core.connected(name)

    def _install(self, info: SnapshotInfo, restoring: Restoring) -> None:
        """A fetched snapshot takes the place of a state and a log that end before it."""
        check_cluster(info, self._membership.cluster_id)
        restoring.install()
        self._journal.align(info.index, info.term)
        self._core.restored(info.index)
        self._roster.restored(info.index, info.configuration)
        self._leadership.installed()
        self._applied(info.index)
        self._kick()
        logger.info("raft_installed node=%s snapshot=%s", self._name, info.id)

    def _apply(self, index: int, term: int, command: bytes) -> None:
        self._compaction.applied(len(command))
        kind = command[:1]
        if is_configuration(command):
            self._roster.applied(index)
            return
        if kind != proposals.COMMAND:
            raise proposals.newer(index, f"of kind {kind.hex()}")
        self._leadership.apply(self._core, index, term, command)

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
