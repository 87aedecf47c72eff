"""The leader's queue: order, reservations, and work that does not grow with its length."""

from __future__ import annotations

from typing import Any

from raftcron.core import definition
from raftcron.core.codec import encode_entry
from raftcron.core.commands import (
    Announce,
    Assign,
    Command,
    Decide,
    Decision,
    Divide,
    Entry,
    Expire,
    Fire,
    Lead,
    NotStarted,
    Place,
    PutGroup,
    PutJob,
    Token,
)
from raftcron.core.model import Run
from raftcron.runtime.assigner import RUNS_PER_LOOK, Assigner
from raftcron.runtime.leases import LeaseKeeper, LeaseTimes
from raftcron.runtime.machine import Machine
from tests.raft.transport_world import HandClock
from tests.unit.restored import new_machine

NOW = 10_000_000_000
MANY = 20_000


async def _no_index() -> int:
    return 0


class Counted(Assigner):
    """Counts the runs that it looks at."""

    looks = 0

    def is_expired(self, run: Run, now: int) -> bool:
        self.looks += 1
        return super().is_expired(run, now)


class Stage:
    """A leader n1 with its neighbours, and a hand on its log."""

    def __init__(self, nodes: int = 1, slots: int = 10) -> None:
        self.machine: Machine = new_machine()
        self.machine.incarnation = 1
        self.index = 0
        self.write(Lead("n1", 1, 1, "", "", ""))
        for number in range(nodes):
            self.write(Announce(f"n{number + 1}", 1, "", "", "", slots, slots))
        clock = HandClock()  # stands still: queueing 20,000 runs may take longer than a lease
        leases = LeaseKeeper(clock, LeaseTimes(), _no_index)
        leases.begin()
        for name in self.machine.state.nodes:
            leases._heard[name] = clock.boot()
        self.assigner = Counted(
            node="n1", machine=self.machine, leases=leases, catch_up_rate=50, moving=set(), is_ending=lambda node: False
        )
        self.assigner.begin(NOW)

    def write(self, command: Command, at: int = NOW) -> None:
        self.index += 1
        self.machine.apply(self.index, encode_entry(Entry(self.machine.state.epoch, at, command)))
        self.machine.applied(self.index)

    def queue(self, name: str, count: int, **fields: Any) -> None:
        """A job with so many queued runs, all of one instant each."""
        executor = {"type": "noop"}
        body = {"schedule": "@every 1s", "executor": executor, "overlap": {"policy": "allow"}, **fields}
        self.write(PutJob(name, definition.canonical(body), NOW - count * 1_000 - 1_000))
        job = self.machine.state.jobs[name]
        fires = [Fire(at, at) for at in range(NOW - count * 1_000, NOW, 1_000)]
        self.write(Decide(Place("n1", 0), [Decision(job.uid, job.revision, NOW, fires)]))
        assert len([run for run in self.machine.state.queued.values() if run.job == name]) == count

    def look(self, now: int = NOW) -> list[Command]:
        """What is proposed now, and taken."""
        commands = list(self.assigner.assign(now, may_expire=True))
        for command in commands:
            self.write(command, now)
            if isinstance(command, Assign):
                self.assigner.settled(command)
        return commands


def test_a_look_at_a_long_queue_that_waits_costs_its_lanes_alone() -> None:
    """Twenty thousand runs wait for a group or a tag: another job's start at once, at the cost of two looks each."""
    stage = Stage()
    stage.write(PutGroup("full", 1))
    stage.queue("grouped", MANY, group="full")
    stage.queue("nowhere", MANY, placement={"tags": {"zone": "none"}})
    stage.look()
    assert stage.machine.state.group_running == {"full": 1}
    stage.assigner.looks = 0
    for _ in range(3):
        assert stage.look() == []
    stage.queue("free", 5)
    [assign] = stage.look()
    assert isinstance(assign, Assign)
    assert [stage.machine.state.runs[one.run].job for one in assign.assignments] == ["free"] * 5
    assert stage.assigner.looks <= 20
    assert stage.assigner.backlog <= 5, "what waits for a group or a tag keeps nobody from deciding"


def test_a_look_gives_no_more_than_there_is_room_for_and_ends() -> None:
    """Slots are counted with what is under way, nodes take turns, and a long queue is taken in parts."""
    stage = Stage(nodes=3, slots=2_000)
    stage.queue("a", MANY, placement={"on": "any"})
    before_any_applied = [*stage.assigner.assign(NOW, may_expire=True), *stage.assigner.assign(NOW, may_expire=True)]
    given = [one for command in before_any_applied if isinstance(command, Assign) for one in command.assignments]
    assert len(given) == len({one.run for one in given}) == 2 * RUNS_PER_LOOK
    nodes = [one.place.node for one in given]
    assert all(abs(nodes.count(node) - len(nodes) / 3) < 10 for node in ("n1", "n2", "n3"))
    more = [*stage.assigner.assign(NOW, may_expire=True), *stage.assigner.assign(NOW, may_expire=True)]
    assert sum(len(command.assignments) for command in more if isinstance(command, Assign)) == 2_000


def test_priority_then_age() -> None:
    """Whatever the order in which lanes came to be."""
    stage = Stage(slots=4)
    stage.queue("low", 3, placement={"priority": 1})
    stage.queue("high", 2, placement={"priority": 99})
    stage.queue("middle", 1)
    [assign] = stage.look()
    assert isinstance(assign, Assign)
    assert [stage.machine.state.runs[one.run].job for one in assign.assignments] == ["high", "high", "middle", "low"]


def test_what_waited_too_long_is_ended_when_it_comes_up() -> None:
    """And in each sweep; where no node ever matched, that is said."""
    stage = Stage()
    stage.queue("late", 5, start_deadline="10s")
    stage.queue("nowhere", 2, placement={"tags": {"a": "b"}})
    assign, expire = stage.assigner.assign(NOW + 8_000, may_expire=True)
    assert isinstance(assign, Assign)
    assert isinstance(expire, Expire)
    assert (len(assign.assignments), len(expire.runs), expire.unmatched) == (2, 3, [])
    assert len(list(stage.assigner.assign(NOW + 8_000, may_expire=False))) == 0, "all of it is under way"
    [swept] = stage.assigner.expire(NOW + 2 * 86_400_000)
    assert len(swept.runs) == len(swept.unmatched) == 2


def test_a_broadcast_is_divided_among_those_that_were_heard() -> None:
    """One part for each node, and the parts are given out by the next look."""
    stage = Stage(nodes=3)
    stage.queue("all", 1, placement={"on": "all"})
    [divide] = stage.look()
    assert isinstance(divide, Divide)
    assert divide.partings[0].nodes == ["n1", "n2", "n3"]
    [assign] = stage.look()
    assert isinstance(assign, Assign)
    assert sorted(one.place.node for one in assign.assignments) == ["n1", "n2", "n3"]
    assert [one.start for one in assign.assignments if one.place.node == "n1"] == [True]


def test_what_a_node_gives_back_over_and_over_is_given_away_ever_more_slowly() -> None:
    """Once at once, then after ever longer waits, to a second; others do not wait for it, nor does its end."""
    stage = Stage()
    stage.queue("refused", 1, start_deadline="10s")

    def give_back(now: int) -> bool:
        commands = stage.look(now)
        given = [one.run for command in commands if isinstance(command, Assign) for one in command.assignments]
        refused = [run for run_id in given if (run := stage.machine.state.runs[run_id]).job == "refused"]
        stage.write(NotStarted([Token(run.id, run.fencing_token) for run in refused]))
        return bool(refused)

    looks = range(NOW, NOW + 5_000)
    times = [now - NOW for now in looks if give_back(now)]
    assert times == [0, 1, 11, 31, 71, 151, 311, 631, 1_271, 2_271, 3_271, 4_271]
    assert stage.assigner.milliseconds_to_wait() == 272, "until it is looked at next"

    stage.queue("other", 1)
    [assign] = stage.look(NOW + 5_000)
    assert isinstance(assign, Assign)
    assert [stage.machine.state.runs[one.run].job for one in assign.assignments] == ["other"]

    assert give_back(NOW - 60_000), "the clock was set back"
    assert [type(command) for command in stage.look(NOW - 60_000 + 500)] == [], "and it waits from there"
    [expire] = stage.look(NOW + 20_000)
    assert isinstance(expire, Expire)
    stage.assigner.forget()
    assert stage.assigner.milliseconds_to_wait() is None
    assert not stage.assigner._returns._waits
