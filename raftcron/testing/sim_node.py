"""One node's process in a simulation: the shipped node (raftcron/node.py) on a simulated clock, disk and network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from raftcron.core.commands import Announce, Done, Outcome
from raftcron.core.model import Key
from raftcron.core.policy import BROKEN
from raftcron.errors import FatalError
from raftcron.executors.registry import Executors, Registry, Surroundings
from raftcron.executors.remnants import seen_end
from raftcron.executors.spawner import Spawner
from raftcron.node import Node, NodeSettings
from raftcron.ports import Attempt, Control, Ending
from raftcron.raft import RaftSettings
from raftcron.raft.scribe import Scribe
from raftcron.raft.settings import CompactionSettings
from raftcron.runtime.leases import LeaseTimes
from raftcron.runtime.machine import Machine
from raftcron.runtime.members import Members
from raftcron.runtime.reads import Reads
from raftcron.runtime.service import Service
from raftcron.testing import sim_checks
from raftcron.testing.chance import chance
from raftcron.testing.sim_checks import Checks
from raftcron.testing.sim_disk import Handle
from raftcron.testing.sim_loop import NodeLoop, ProcessDied, SimClock
from raftcron.testing.sim_processes import Box, Course
from raftcron.testing.sim_releases import LATER, block_in, block_out, entry_in, entry_out, is_later, make_later

DIRECTORY = Path("/data")
JOURNAL = DIRECTORY / "journal"
SNAPSHOTS = DIRECTORY / "snapshots"
RUN_DIRECTORY = DIRECTORY / "run"
PORT = 7201
SLOTS = 20
CATCH_UP_RATE = 50
BREAKING_SHARE = 0.5  # of the attempts that fail
GRACE_SECONDS = 2.0  # of an orderly end
REGISTRY = Registry()


class Setting(NamedTuple):
    """What all nodes of a simulation share."""

    seed: int
    addresses: dict[str, str]  # of all machines: name -> host
    founders: list[str]
    compaction: CompactionSettings
    times: LeaseTimes
    request_seconds: float
    has_spawners: bool  # one a node, which runs what is of type shell
    tags: dict[str, dict[str, str]]  # what nodes carry
    breaks: bool  # some of what fails breaks off
    call: Callable[[Attempt], tuple[float, Ending]]  # a target: after how many seconds it answers, and what
    course: Callable[[str, Attempt], Course] | None = None  # of user code on a node; None: drawn

    def course_of(self, node: str, attempt: Attempt) -> Course:
        if self.course is not None:
            return self.course(node, attempt)
        drawn = _drawn(self.seed, attempt)
        if not self.breaks:
            return drawn
        dice = chance(self.seed, f"breaks/{attempt.run_id}/{attempt.attempt}")
        return drawn._replace(breaks=dice.random() < BREAKING_SHARE)


class _Watched:
    """The state machine as the log sees it: shipped, and looked at after each entry."""

    def __init__(self, life: Life, machine: Machine) -> None:
        self._life = life
        self._machine = machine

    @property
    def epoch(self) -> int:
        return self._machine.epoch

    def leadership(self, term: int) -> bytes:
        return entry_out(self._life.release, self._machine.leadership(term))

    def apply(self, index: int, body: bytes) -> Outcome:
        life, checks = self._life, self._life.checks
        body = entry_in(life.release, body)
        if life.loop.is_dead:
            return self._machine.apply(index, body)
        checks.before(index, self._machine.state)
        outcome = self._machine.apply(index, body)
        if is_later(body):
            checks.fail(sim_checks.NEWER, f"{life.name} has applied {index}, which a later release has written")
        checks.after(life.name, index, body, self._machine.state, outcome)
        return outcome

    def applied(self, index: int) -> None:
        self._life.note(f"applied {index} {self._machine.state.digest & 0xFFFFFFFF:08x}")
        self._machine.applied(index)
        self._life.applied(index)

    def snapshot(self) -> Iterator[bytes]:
        return map(partial(block_out, self._life.release), self._machine.snapshot())

    def restoring(self) -> _Restoring:
        return _Restoring(self._life, self._machine)


class _Restoring:
    """A snapshot on its way in: shipped, and looked at once it stands in the state's place."""

    def __init__(self, life: Life, machine: Machine) -> None:
        self._life = life
        self._machine = machine
        self._restoring = machine.restoring()

    def feed(self, block: bytes) -> None:
        self._restoring.feed(block_in(self._life.release, block))

    def install(self) -> None:
        self._restoring.install()
        state, life = self._machine.state, self._life
        life.note(f"has a snapshot of {state.index} {state.digest & 0xFFFFFFFF:08x}")
        life.checks.installed(life.name, state)


class _Executor:
    """User code; where nothing else is said, of random duration and end, the same for an attempt of a seed."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        life = self._life
        if attempt.executor.get("type") == "shell":
            ending = await life.executors.run(attempt, control)
            if ending.state == "not_started":
                life.checks.refused(life.name, life.number, attempt)
            return ending
        if control.may_start() is None:
            life.note(f"refuses to start {attempt.run_id} {attempt.attempt}")
            life.checks.refused(life.name, life.number, attempt)
            return Ending("not_started")
        if not life.loop.is_dead:
            life.note(f"starts {attempt.run_id} {attempt.attempt}")
            life.checks.started(life.name, life.number, attempt, life.newest(), life.loop)
        answer = None
        if attempt.executor.get("async"):
            seconds, answer = life.setting.call(attempt)
            does = Course(seconds, False)
        else:
            does = life.setting.course_of(life.name, attempt)
        stop = asyncio.ensure_future(control.stopped())
        try:
            done, _ = await asyncio.wait([stop], timeout=min(does.seconds, attempt.timeout_seconds))
            if done and does.dying_seconds:
                await asyncio.sleep(does.dying_seconds)
        finally:
            stop.cancel()
            life.checks.stopped(attempt.run_id, attempt.fencing_token)
        if done:
            reason = stop.result()
            life.checks.counts[f"stopped {reason}"] += 1
            return Ending("cancelled" if reason == "cancelled" else "failed", error_kind=reason)
        if answer is not None:
            return answer
        if does.seconds > attempt.timeout_seconds:
            return Ending("timed_out", error_kind="timeout")
        if does.fails and does.breaks:
            return Ending("failed", proven=False, error_kind=BROKEN)
        if does.fails:
            return Ending("failed", exit_code=1, error_kind="exit")
        return Ending("succeeded", exit_code=0)


def _drawn(seed: int, attempt: Attempt) -> Course:
    dice = chance(seed, f"run/{attempt.run_id}/{attempt.attempt}")
    return Course(dice.choice([0.0, 0.1, 0.5, 2.5, 9.0]) * dice.random(), dice.random() < 0.2)


class Life:
    """One life of one node's process."""

    def __init__(
        self,
        name: str,
        number: int,
        setting: Setting,
        loop: NodeLoop,
        clock: SimClock,
        device: Handle,
        scribe: Scribe,
        box: Box,
        checks: Checks,
        *,
        newest: Callable[[], Any],
        applied: Callable[[int], None],
        note: Callable[[str], None],
        release: int,
    ) -> None:
        self.name = name
        self.number = number
        self.setting = setting
        self.loop = loop
        self.device = device
        self.checks = checks
        self.newest = newest
        self.applied = applied
        self.note = note
        self.release = release
        self.fatal: BaseException | None = None
        self.is_started = False
        self.is_ending = False  # in good order
        self.seen_applied = 1  # how far its log has been looked at, and
        self.seen_members: object = None  # the newest configuration in it
        self.seen_disk: tuple[int, int] | None = None  # how often its bytes and names had become others
        self.seen_matches: tuple[int, list[tuple[str, int]]] | None = None  # the lead that was looked at last
        self.spawner = Spawner(
            RUN_DIRECTORY, host=box.host(loop), lease_grace_seconds=_grace(setting.times), fatal=self.fail
        )
        surroundings = Surroundings(allow_shell=True, spawner=self.spawner, environment={}, clock=clock)
        self.executors = Executors(REGISTRY, surroundings)
        self.node = node = Node(
            _settings(name, setting, release),
            clock=clock,
            device=device,
            rng=chance(setting.seed, f"{name}/{number}"),
            scribe=scribe,
            executor=_Executor(self),
            fatal=self.fail,
            licensed=lambda held: self.spawner.extend(held.until),
            watch=lambda machine: _Watched(self, machine),
        )
        if release == LATER:
            make_later(node)
        self.time = node.time
        self.machine = node.machine
        self.log = node.log
        self.reads = Reads(node.log, node.machine, clock, node.fresh_at)
        self.members = Members(
            node=name,
            log=node.log,
            machine=node.machine,
            reads=self.reads,
            lease_left=node.leases.seconds_left,
            note=_not_noted,
        )
        self.service = Service(
            node=name,
            machine=node.machine,
            proposer=node.proposer,
            time=node.time,
            reads=self.reads,
            log=node.log,
            registry=REGISTRY,
        )
        loop.set_exception_handler(self._handle)

    def begin(self) -> None:
        """The process begins."""
        self.loop.create_task(self._start())

    async def _start(self) -> None:
        self.node.log.on_leadership(self._leadership)
        try:
            remnants = await self.spawner.start() if self.setting.has_spawners else []
            ends = [end for remnant in remnants if (end := seen_end(remnant)) is not None]
            self.checks.counts["attempts that a former life has left"] += len(remnants)
            self.checks.counts["ends of them that its spawner saw"] += len(ends)
            await self.node.start(ends)
        except Exception as error:
            self.fail(error)
        else:
            self.is_started = True

    def _leadership(self, epoch: int | None) -> None:
        self.note("leads no more" if epoch is None else f"leads in epoch {epoch}")

    def fail(self, error: BaseException) -> None:
        """The node cannot go on: the process ends, after its connections have been closed or right now."""
        if self.fatal is None and not self.loop.is_dead:
            self.fatal = error
            self.note(f"cannot go on: {error}")
            self.loop.call_soon(self._exit)

    def _exit(self) -> None:
        raise ProcessDied("it has ended itself")

    def term_of(self, index: int) -> int:
        """Of an entry that this node has applied."""
        journal = self.log._journal
        place = index - journal[0][1]
        return int(journal[place][2] if place >= 0 else self.checks.committed[index][2])

    def end(self) -> None:
        """SIGTERM."""
        if not self.is_ending:
            self.is_ending = True
            self.loop.create_task(self._end())

    async def _end(self) -> None:
        try:
            await self.node.drain()
            await self.node.stop_loops()
            await self.spawner.stop()
            await self.log.stop()
        except Exception as error:
            self.fail(error)
        else:
            self.loop.call_soon(self._exit)

    def _handle(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.loop.is_dead:
            error = context.get("exception")
            self.fail(FatalError(f"nobody took care of {context.get('message')}: {error!r}"))


def _grace(times: LeaseTimes) -> float:
    """As the daemon has it."""
    return max(0.0, times.lease_seconds / 2 - times.margin_seconds)


def _settings(name: str, setting: Setting, release: int) -> NodeSettings:
    address = setting.addresses[name]
    return NodeSettings(
        raft=RaftSettings(
            name=name,
            listen=(address, PORT),
            peers={peer: (setting.addresses[peer], PORT) for peer in {**dict.fromkeys(setting.founders), name: None}},
            data_dir=DIRECTORY,
            secret=b"simulated",
            request_timeout=setting.request_seconds,
            compaction=setting.compaction,
        ),
        times=setting.times,
        catch_up_rate=CATCH_UP_RATE,
        grace_seconds=GRACE_SECONDS,
        announcement=Announce(
            node=name,
            incarnation=0,
            http=f"{address}:7200",
            raft=f"{address}:{PORT}",
            version=f"simulated {release}",
            slots=SLOTS,
            process_slots=SLOTS,
            tags=setting.tags.get(name, {}),
        ),
    )


async def _not_noted(text: str, key: Key | None) -> Done:
    """Nobody audits a simulation: an entry more for each change of the members would only move the recorded traces."""
    return Done()
