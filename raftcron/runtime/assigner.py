"""The leader's queue: which queued runs get a node now, which are divided, which have waited too long.

Part of the leader's loop (scheduler.py), which proposes what is said here and tells when it has applied or failed.  One
look costs work for each lane of the queue and for each run that moves, whatever its length.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftcron.core.commands import Assign, Assignment, Command, Divide, Expire, Parting, Place, Token, Unassign
from raftcron.core.model import ACTIVE, ASSIGNED, ON_ALL, ON_LEADER, ON_STICKY, QUEUED, Run
from raftcron.core.placement import Lane, Tags, choose, is_process, matching, part_names
from raftcron.core.policy import start_deadline, waiting_since
from raftcron.core.state import State
from raftcron.runtime.leases import LeaseKeeper
from raftcron.runtime.machine import Machine

RUNS_PER_ENTRY = 500
RUNS_PER_LOOK = 2_000  # that get a node before the loop gets a turn
SCAN_PER_SWEEP = 20_000  # queued runs whose deadline is looked at in one sweep: about 10 ms
PARTS_AT_ONCE = 10_000  # parts that have not ended; beyond it what is to be divided waits
PACED_PARTS_AT_ONCE = PARTS_AT_ONCE // 2  # beyond it what is caught up waits: the rest is for what falls due now
PARTS_PER_ENTRY = 1_000  # about 15 ms of apply
STICKY_LOOKS = 100  # runs of a lane that wait for one node each
RETURN_WAIT_MS = 10  # from the first assignment of a run that came back unstarted to the next one; doubled each time
RETURN_WAIT_MAX_MS = 1_000

_Wish = tuple[str | None, Tags, str | None]  # what a run demands of its node; the leader's name where it has to be that


class _Held(NamedTuple):
    """What an assignment under way takes."""

    node: str
    is_process: bool
    group: str | None


class _Room:
    """The nodes' room, less what is under way to them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.slots: Counter[str] = Counter()
        self.processes: Counter[str] = Counter()
        self.groups: Counter[str | None] = Counter()

    def carries(self, node: str, tags: Tags) -> bool:
        return self.state.carries(node, tags)

    def has_slot(self, node: str, *, process: str | None) -> bool:
        record = self.state.nodes[node]
        if record.drained or len(self.state.on_node.get(node, ())) + self.slots[node] >= record.slots:
            return False
        return (
            not is_process(record, process)
            or self.state.processes.get(node, 0) + self.processes[node] < record.process_slots
        )

    def load(self, node: str) -> float:
        return self.state.load(node) + self.slots[node] / max(1, self.state.nodes[node].slots)

    def has_group_room(self, group: str | None) -> bool:
        return group is None or self.state.group_room(group) > self.groups[group]

    def take(self, held: _Held, count: int = 1) -> None:
        self.slots[held.node] += count
        self.groups[held.group] += count
        if held.is_process:
            self.processes[held.node] += count


class Assigner:
    """Gives queued runs their nodes while this node leads; begun anew with each lead."""

    def __init__(
        self,
        *,
        node: str,
        machine: Machine,
        leases: LeaseKeeper,
        catch_up_rate: float,
        moving: set[str],
        is_ending: Callable[[str], bool],
    ) -> None:
        """`moving` are runs that the leader's loop is moving otherwise: they are left alone, and what is expired,
        divided or taken back here joins them.  `is_ending` tells whether another node is about to end.
        """
        self._node = node
        self._machine = machine
        self._leases = leases
        self._starts = _Pace(catch_up_rate)
        self._divisions = _Pace(catch_up_rate)
        self._moving = moving
        self._is_ending = is_ending
        self._assigning: dict[str, _Held] = {}
        self._returns = _Returns()
        self._matched: dict[_Wish, int] = {}  # when a live node was last seen that meets it
        self._scanned = 0  # place in the queue up to which deadlines were looked at
        self._backlog = 0
        self.is_draining = False  # this node starts nothing any more

    def begin(self, now: int) -> None:
        """A new lead: nothing of a former one is under way."""
        self._assigning.clear()
        self._returns = _Returns()
        self._matched.clear()
        self._backlog = self._scanned = 0
        self._starts.begin(now)
        self._divisions.begin(now)

    # ---- which nodes there are

    def place(self) -> Place:
        """Where runs of the placement `leader` start; nowhere while this node drains, so that they are queued."""
        return Place(self._node, 0 if self.is_draining else self._machine.incarnation)

    def live(self) -> list[Place]:
        """The nodes that may get runs now, in order of their names."""
        nodes = self._machine.state.nodes
        return [Place(name, nodes[name].incarnation) for name in sorted(nodes) if self._takes_runs(name, fresh=True)]

    def _takes_runs(self, name: str, *, fresh: bool) -> bool:
        if self._machine.state.nodes[name].drained:
            return False
        if name == self._node:
            return not self.is_draining and self._machine.state.is_alive(name, self._machine.incarnation)
        is_there = self._leases.is_fresh(name) if fresh else self._leases.is_heard(name)
        return is_there and not self._is_ending(name)

    def _audience(self) -> list[str] | None:
        """The nodes of a broadcast that is divided now; None: this lead is too young to tell."""
        nodes = self._machine.state.nodes
        if any(name != self._node and self._leases.may_come(name) for name in nodes):
            return None
        return [name for name in sorted(nodes) if self._takes_runs(name, fresh=False)]

    # ---- what of the queue goes on

    @property
    def backlog(self) -> int:
        """How many queued runs waited for a slot alone when the queue was last looked at."""
        return self._backlog if self._machine.state.queued else 0

    def assign(self, now: int, *, may_expire: bool) -> Iterator[Command]:
        """What of the queue gets a node, or is divided, now: by priority, then by age.

        What comes up and has waited too long is ended where the time may be trusted (`may_expire`).  What is caught up,
        or of a backfill, gets nodes at the catch-up rate, parts one by one like all else: in no second more than a
        tenth above it, however many parts a run has.  Dividing has an allowance of its own, in parts, that the last run
        divided may overdraw: so a run of any number of parts goes on, and few of them wait.
        """
        state = self._machine.state
        if not state.is_alive(self._node, self._machine.incarnation):
            return  # this life is not announced yet
        self._returns.now = now
        self._starts.refill(now)
        self._divisions.refill(now)
        places = {place.node: place for place in self.live()}
        room = _Room(state)
        for held in self._assigning.values():
            room.take(held)
        chosen: list[Assignment] = []
        partings: list[Parting] = []
        late: list[str] = []
        heads = _Heads(self._open_lanes(room, list(places), now), self._is_out)
        sticky_looks = STICKY_LOOKS
        parts = sum(map(len, state.active_parts.values())) if any(lane.is_whole for lane in state.lanes) else 0
        while len(chosen) + len(late) < RUNS_PER_LOOK and (head := heads.pop()) is not None:
            lane, run = head
            if self.is_expired(run, now):
                late.append(run.id)
                heads.go_on(lane)
                continue
            pace = self._divisions if lane.is_whole else self._starts
            if lane.is_paced and not pace.has_any:
                continue
            size = 1
            if lane.is_whole:
                most = PACED_PARTS_AT_ONCE if lane.is_paced else PARTS_AT_ONCE
                parting = self._parting(lane, run) if parts < most and len(partings) < RUNS_PER_LOOK else None
                if parting is None:
                    continue
                size = len(parting.nodes) or state.policy(run.uid).shards
                parts += size
                partings.append(parting)
            else:
                node = self._choose(lane, run, places, room, len(chosen))
                if node is None:
                    sticky_looks -= 1
                    if lane.on == ON_STICKY and sticky_looks > 0 and room.has_group_room(lane.group):
                        heads.go_on(lane)
                    continue
                held = self._assigning[run.id] = _Held(node, state.is_process(node, lane.process), lane.group)
                room.take(held)
                self._returns.note(run)
                chosen.append(Assignment(run.id, places[node], start=node == self._node))
            if lane.is_paced:
                pace.take(size)
            heads.go_on(lane)
        self._moving.update(parting.run for parting in partings)
        for at in range(0, len(chosen), RUNS_PER_ENTRY):
            yield Assign(chosen[at : at + RUNS_PER_ENTRY])
        yield from (Divide(part) for part in self._by_parts(partings))
        if may_expire:
            self._moving.update(late)
            yield from self._expiry(late)

    def _open_lanes(self, room: _Room, live: list[str], now: int) -> dict[Lane, dict[str, Run]]:
        """The lanes that may go on; what they wait for beside a slot is taken into account here."""
        found: dict[Lane, dict[str, Run]] = {}
        now = max(now, room.state.cluster_time)  # by which runs are queued
        backlog = 0
        matched: dict[_Wish, int] = {}
        for lane, runs in room.state.lanes.items():
            wish = self._wish(lane)
            if wish not in matched:
                seen = now if matching(lane.tags, wish[0] or wish[2], live, room) else self._matched.get(wish, -1)
                matched[wish] = seen
            if not room.has_group_room(lane.group) or (matched[wish] < now and not lane.is_whole):
                continue
            found[lane] = runs
            if not lane.is_paced and not lane.is_whole:
                backlog += len(runs)
        self._matched, self._backlog = matched, backlog
        return found

    def _wish(self, lane: Lane) -> _Wish:
        """What the runs of a lane demand of a node."""
        return self._node if lane.on == ON_LEADER and not lane.is_whole else None, lane.tags, lane.node

    def _is_busy(self, run: Run) -> bool:
        return run.id in self._assigning or run.id in self._moving

    def _is_out(self, run: Run) -> bool:
        """Whether a run takes no part in this look; one that has waited too long does, since it ends."""
        if self._is_busy(run):
            return True
        return self._returns.holds(run) and not self.is_expired(run, self._returns.now)

    def _choose(self, lane: Lane, run: Run, places: dict[str, Place], room: _Room, turn: int) -> str | None:
        if not room.has_group_room(lane.group):
            return None
        state = room.state
        return choose(
            lane.on,
            lane.tags,
            list(places),
            room,
            leader=self._node,
            last=state.by_uid[run.uid].last_node,
            only=lane.node,
            process=lane.process,
            turn=state.next_token + turn,
        )

    def _parting(self, lane: Lane, run: Run) -> Parting | None:
        """How a run is divided; None: it has to wait."""
        state, nodes = self._machine.state, list[str]()
        if lane.on == ON_ALL:
            audience = self._audience()
            if audience is None:
                return None
            nodes = matching(lane.tags, None, audience, state)
        return Parting(run.id, nodes) if part_names(state.policy(run.uid), run, nodes) else None

    def _by_parts(self, partings: list[Parting]) -> Iterator[list[Parting]]:
        """As many as one entry takes."""
        state, batch, size = self._machine.state, list[Parting](), 0
        for parting in partings:
            batch.append(parting)
            run = state.runs.get(parting.run)
            policy = None if run is None else state.policies.get(run.uid)
            size += len(parting.nodes) or (1 if policy is None else policy.shards)
            if size >= PARTS_PER_ENTRY:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def settled(self, command: Assign) -> None:
        """The command has applied or failed: its runs may be looked at again."""
        for assignment in command.assignments:
            self._assigning.pop(assignment.run, None)

    # ---- what has waited too long

    def expire(self, now: int) -> Iterator[Expire]:
        """Runs whose attempt may no longer start; of a long queue a part in each sweep."""
        state = self._machine.state
        if self._scanned >= len(state.queued) + len(state.held):
            self._scanned = 0
        waiting = itertools.chain(state.queued.values(), state.held.values())
        queued = itertools.islice(waiting, self._scanned, self._scanned + SCAN_PER_SWEEP)
        self._scanned += SCAN_PER_SWEEP
        ids = [
            run.id
            for run in itertools.chain(queued, *map(dict.values, state.on_node.values()))
            if run.state in (QUEUED, ASSIGNED) and not self._is_busy(run) and self.is_expired(run, now)
        ]
        self._moving.update(ids)
        yield from self._expiry(ids)

    def _expiry(self, ids: list[str]) -> Iterator[Expire]:
        runs = self._machine.state.runs
        for at in range(0, len(ids), RUNS_PER_ENTRY):
            part = ids[at : at + RUNS_PER_ENTRY]
            yield Expire(part, [run_id for run_id in part if self._is_unmatched(runs.get(run_id))])

    def _is_unmatched(self, run: Run | None) -> bool:
        """Whether no live node has met the run's demands while its attempt waited, as far as this leader has seen."""
        lane = None if run is None else self._machine.state.lane_of(run)
        if run is None or lane is None or (run.fencing_token and not run.attempts):
            return False
        return self._matched.get(self._wish(lane), -1) < waiting_since(run)

    def is_expired(self, run: Run, now: int) -> bool:
        """Whether the start deadline of the run's attempt has passed."""
        policy = self._machine.state.policies.get(run.uid)
        at = max(now, self._machine.state.cluster_time)  # by which `apply` judges it
        return policy is not None and at > start_deadline(policy, run)

    def take_back(self) -> Iterator[Unassign]:
        """Assignments to nodes that have fallen silent: they go elsewhere long before the lease has ended."""
        found: list[Unassign] = []
        for node, runs in self._machine.state.on_node.items():
            if node == self._node or self._leases.is_fresh(node):
                continue
            waiting = (run for run in runs.values() if run.state == ASSIGNED and run.id not in self._moving)
            tokens = [Token(run.id, run.fencing_token) for run in itertools.islice(waiting, RUNS_PER_ENTRY)]
            if tokens:
                self._moving.update(token.run for token in tokens)
                found.append(Unassign(tokens))
        yield from found

    def bound(self) -> dict[str, dict[str, Run]]:
        """Queued runs that can be on one node alone, by that node: they are lost with it."""
        found: dict[str, dict[str, Run]] = {}
        for lane, runs in self._machine.state.lanes.items():
            if lane.node is not None:
                found.setdefault(lane.node, {}).update(runs)
        return found

    def forget(self) -> None:
        """What has ended comes back no more; looked at in each sweep."""
        self._returns.forget(self._machine.state)

    # ---- when to look again

    def milliseconds_to_wait(self) -> float | None:
        """When to look again although nothing changes; None: not before something does."""
        waits: list[float] = [*self._returns.waits(self._machine.state)]
        if any(lane.is_paced for lane in self._machine.state.lanes):
            waits.append(1000 / self._starts.rate)
        return min(waits, default=None)


class _Returns:
    """Runs that nodes have given back unstarted, and when each may be given away again.

    A start gate may refuse for as long as its reason lasts: a node whose time is ahead refuses what is past its start
    deadline there, and not here.  At once again and again, that would be thousands of entries a second.  The first
    return costs nothing; from the second on the time between two assignments doubles, up to `RETURN_WAIT_MAX_MS`.
    """

    def __init__(self) -> None:
        self.now = 0  # milliseconds, as of the look under way
        self._waits: dict[str, tuple[int, int]] = {}  # since when, and for how long

    def note(self, run: Run) -> None:
        """The run is given to a node now."""
        if run.fencing_token and not (run.attempts and run.attempts[-1].fencing_token == run.fencing_token):
            _, wait = self._waits.get(run.id, (0, RETURN_WAIT_MS // 2))
            self._waits[run.id] = self.now, min(2 * wait, RETURN_WAIT_MAX_MS)

    def holds(self, run: Run) -> bool:
        """Whether the run has to wait."""
        return run.id in self._waits and self._left(run.id) > 0

    def waits(self, state: State) -> Iterator[int]:
        """How long each that is queued has to wait, in milliseconds."""
        for run_id in self._waits:
            if run_id in state.queued and (left := self._left(run_id)) > 0:
                yield left

    def forget(self, state: State) -> None:
        """Keep what may come back once more."""
        self._waits = {
            run_id: wait
            for run_id, wait in self._waits.items()
            if (run := state.runs.get(run_id)) is not None and run.state in ACTIVE
        }

    def _left(self, run_id: str) -> int:
        since, wait = self._waits[run_id]
        passed = self.now - since
        return wait - passed if passed >= 0 else 0  # a clock that was set back holds nothing up


class _Pace:
    """So many a second, and a tenth of that at once; what is taken beyond it is waited for afterwards."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._left = 0.0
        self._at = 0

    def begin(self, now: int) -> None:
        """From here on, with one."""
        self._at, self._left = now, min(1.0, self.rate)

    def refill(self, now: int) -> None:
        """It is `now`, in milliseconds."""
        passed = max(0, now - self._at) / 1000
        self._at = now
        most = max(2.0, self.rate / 10)  # with less than two, one would be lost by each look that comes a little late
        self._left = min(most, self._left + passed * self.rate)

    @property
    def has_any(self) -> bool:
        return self._left >= 1

    def take(self, count: int) -> None:
        self._left -= count


class _Heads:
    """The first runs of lanes, by priority, then by age."""

    def __init__(self, lanes: dict[Lane, dict[str, Run]], is_busy: Callable[[Run], bool]) -> None:
        self._is_busy = is_busy
        self._waiting = {lane: iter(runs.values()) for lane, runs in lanes.items()}
        self._places = {lane: place for place, lane in enumerate(lanes)}  # so that no two are equal
        self._heap: list[tuple[int, int, int, int, Lane, Run]] = []
        for lane in lanes:
            self.go_on(lane)

    def go_on(self, lane: Lane) -> None:
        """The next run of a lane takes part."""
        for run in self._waiting[lane]:
            if not self._is_busy(run):
                key = (-lane.priority, run.queued_at, run.log_index, self._places[lane])
                heapq.heappush(self._heap, (*key, lane, run))
                return

    def pop(self) -> tuple[Lane, Run] | None:
        """Whose turn it is; its lane takes part no more before `go_on`."""
        return heapq.heappop(self._heap)[-2:] if self._heap else None
