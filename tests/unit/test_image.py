"""The state as a snapshot and back: whole, the same, shared as before, and refused where it is not what was written."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from raftcron.core import commands as c
from raftcron.core import definition
from raftcron.core.codec import encode_entry
from raftcron.core.commands import Announce, DeleteJob, PutCalendar, PutGroup, PutJob, TakenOver, TakeOver, Trigger
from raftcron.core.image import BLOCK_BYTES, BLOCK_WORK, IMAGE_VERSION, OLDEST_VERSION, SCHEDULE_WORK, Meanings
from raftcron.core.model import Job, Key
from raftcron.core.records import TABLES
from raftcron.core.state import ORDERS
from raftcron.errors import DamagedError, FatalError, NewerVersionError
from raftcron.runtime.machine import RELEASE_SLICE, Machine
from tests.unit.machine import NOOP
from tests.unit.machine import Machine as Hand
from tests.unit.restored import assert_equal, coming, held, new_machine, restored, undecided

RETRIED = {"delivery": "at_least_once", "retry": {"max_attempts": 2}}
MANY = 10_000  # slots


def everything(size: int = 1) -> Hand:
    """A log that has left something in every table and every order; the more, the larger `size`."""
    hand = Hand()
    hand.lead()
    for node in ("n1", "n2"):
        hand.write(Announce(node, 1, f"{node}:1", f"{node}:2", "0", MANY, MANY))
    hand.done(PutCalendar("holidays", msgspec.msgpack.encode({"dates": ["2030-01-01"]}), hand.at))
    key = Key("scope", b"hash", 0, 0, 0)
    hand.done(PutJob("keyed", definition.canonical({"schedule": "@manual", "executor": NOOP}), None, key=key))
    origin = c.Origin("ci", "n1", "127.0.0.1", "POST", "/v1/tokens")
    for command in (
        c.CreateToken("ci", bytes(32), "read", "", ""),
        c.KeepKey(b"w", b"s"),
        c.PutSecret("s", b"x", 0),
    ):
        hand.write(command, origin=origin)
    hand.done(PutGroup("few", 5))
    hand.done(c.PutAlertRoute("default", msgspec.msgpack.encode([{"type": "email", "to": "a@b.c"}])))
    hand.put("spared", schedule="0 6 * * *", exclude=["holidays"])

    def fire(name: str, node: str = "n2", **fields: Any) -> Any:
        job = hand.state.jobs.get(name) or hand.put(name, **fields)
        return hand.fire(job, hand.at + 1_000, node=node)

    for number in range(size):
        fire(f"running-{number}", "n1", executor={"type": "shell", "command": "true"})
        fire(f"queued-{number}", "a node that is not there")
        hand.finish(fire(f"waiting-{number}", **RETRIED), "failed", error="no", error_kind="exit")
        first, second = (fire(f"ended-{number}", overlap={"policy": "allow"}) for _ in range(2))
        hand.finish(second, output_tail=b"second")
        hand.finish(first, output_tail=b"first", exit_code=0)
        for ending in ("failed", "succeeded", "succeeded"):
            hand.finish(fire(f"old-{number}"), ending)
        for _ in range(2):
            fire(f"turns-{number}", overlap={"policy": "queue"})
        gone = fire(f"gone-{number}")
        hand.finish(gone, output_tail=b"gone")
        hand.done(DeleteJob(gone.job, [], hand.state.jobs[gone.job].revision))
        with_target = fire(f"remote-{number}", executor={"type": "http", "async": True})
        hand.done(TakeOver([TakenOver(with_target.id, with_target.fencing_token, 60_000, 202)]))
        hand.put(f"after-{number}", after=[{"job": f"ended-{number}"}, {"job": gone.job}])
        hand.finish(fire(f"ended-{number}"))
    for _ in range(2):  # the second drops the first, which keeps its place among the output tails
        hand.finish(fire("forgetful", history={"runs": 1}), output_tail=b"tail")
    hand.done(c.Stage("restore", 0, "jobs", b"\x90"))
    return hand


def machine_of(hand: Hand) -> Machine:
    """What a node is after the same log."""
    machine = new_machine()
    for index, body in enumerate(hand.log, 1):
        machine.apply(index, body)
    machine.applied(len(hand.log))
    return machine


@pytest.fixture(scope="module")
def small() -> Machine:
    return machine_of(everything())


@pytest.fixture(scope="module")
def large() -> Machine:
    return machine_of(everything(600))


def rows(blocks: Iterable[bytes], table: str) -> list[list[Any]]:
    """What each block of a table holds."""
    parts = [msgspec.msgpack.decode(block[1:]) for block in blocks]
    return [part for name, part in parts if name == table]


# ---- whole -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_snapshot_holds_all_of_a_state(size: str, request: pytest.FixtureRequest) -> None:
    """Every table and every order, none of them empty; also where they take many blocks."""
    whole: Machine = request.getfixturevalue(size)
    assert all(getattr(whole.state, name) for name in (*TABLES, *ORDERS)), "everything() has to leave more"
    assert set(whole.state.tails) - set(whole.state.runs), "a row that is gone has left no place among the tails"
    other = restored(whole.snapshot())
    assert_equal(whole, other)
    assert (other.epoch, other.applied_index) == (whole.epoch, whole.applied_index)


def test_what_is_due_is_due_on_a_restored_machine() -> None:
    """All jobs with an undecided time, and when the next one comes."""
    whole = machine_of(everything())
    other = restored(whole.snapshot())
    assert coming(other) == coming(whole)
    now = 2_000_000_000_000
    assert undecided(other, now) == undecided(whole, now) != []


def test_a_state_that_has_seen_no_entry_has_a_snapshot_too() -> None:
    """The digest of nothing is nought."""
    assert_equal(new_machine(), restored(new_machine().snapshot()))


def test_the_newest_digests_are_kept_and_those_of_every_1024th_index() -> None:
    """As many of each: nodes that are far apart have one index in common."""
    machine = new_machine()
    body = encode_entry(c.Entry(7, 0, c.Note("of another epoch")))
    for index in range(1, 3_000):
        machine.apply(index, body)
    assert [index for index, _ in machine.digests] == list(range(2_999 - 1_023, 3_000))
    assert [index for index, _ in machine.spaced_digests] == [1_024, 2_048]
    assert machine.spaced_digests.maxlen == 1_024


def test_only_what_this_node_has_worked_out_is_shown_as_its_digests(small: Machine) -> None:
    """The one at the snapshot's index, which was found anew from the records, and none that it was told."""
    other = restored(small.snapshot())
    assert list(other.digests) == [(small.state.index, small.state.digest)]
    assert list(other.spaced_digests) == []


# ---- in slices -------------------------------------------------------------------------------------------------------


def test_blocks_are_bounded_by_records_and_bytes(large: Machine) -> None:
    """Only a record that is larger by itself makes a larger block."""
    blocks = list(large.snapshot())
    for table in TABLES:
        assert all(len(part) <= BLOCK_WORK for part in rows(blocks, table))
    assert len(rows(blocks, "runs")) > 2
    hand = Hand()
    hand.lead()
    for number in range(4):
        hand.put(f"job-{number}", executor={"type": "noop", "note": "x" * 100_000})
    hand.put("large", executor={"type": "noop", "note": "x" * 900_000})
    parts = rows(machine_of(hand).snapshot(), "jobs")
    assert [[row[0] for row in part] for part in parts] == [["job-0", "job-1"], ["job-2", "job-3"], ["large"]]
    assert max(map(len, large.snapshot())) <= BLOCK_BYTES


def test_a_block_brings_few_schedules_that_were_not_there_before() -> None:
    """To parse one and to find its next time costs a reader as much as many records."""
    hand = Hand()
    hand.lead()
    for number in range(100):
        hand.put(f"same-{number}", schedule="5 5 * * *")
        hand.put(f"own-{number}", schedule="H H * * *")
    parts = rows(machine_of(hand).snapshot(), "jobs")
    own = [sum(row[0].startswith("own-") for row in part) for part in parts]
    assert sum(own) == 100
    assert max(own) <= BLOCK_WORK // SCHEDULE_WORK
    assert sum(map(len, parts)) == 200


def test_long_orders_are_continued(large: Machine) -> None:
    """A queue does not have to fit into one block."""
    assert len(rows(large.snapshot(), "history")) > 1
    hand = Hand()
    hand.lead()
    hand.put(overlap={"policy": "allow"})
    for _ in range(4 * BLOCK_WORK + 1):
        hand.done(Trigger("job", None))
    whole = machine_of(hand)
    assert len(rows(whole.snapshot(), "queued")) > 1
    assert_equal(whole, restored(whole.snapshot()))


def test_nothing_may_be_applied_while_a_snapshot_is_made() -> None:
    """It would hold some of one state and some of another."""
    hand = everything()
    machine = machine_of(hand)
    blocks = machine.snapshot()
    next(blocks)
    hand.put("further")
    machine.apply(len(hand.log), hand.log[-1])
    with pytest.raises(AssertionError, match="has changed"):
        list(blocks)


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_a_newer_version_is_named(small: Machine) -> None:
    """In whichever block it stands."""
    first, second, *_ = small.snapshot()
    restoring = new_machine().restoring()
    with pytest.raises(NewerVersionError, match=rf"version {IMAGE_VERSION + 1}.*upgrade"):
        restoring.feed(bytes([IMAGE_VERSION + 1]) + first[1:])
    restoring.feed(first)
    with pytest.raises(NewerVersionError, match="upgrade"):
        restoring.feed(b"\xff" + second[1:])


def test_an_image_from_before_the_first_release_is_refused_with_what_to_do(small: Machine) -> None:
    """Its rows lack what others tell of them: nodes that read it would differ from those that did not."""
    first = next(small.snapshot())
    with pytest.raises(FatalError, match=rf"version {OLDEST_VERSION - 1}.*raftcron backup"):
        new_machine().restoring().feed(bytes([OLDEST_VERSION - 1]) + first[1:])


def damages(blocks: list[bytes]) -> dict[str, list[bytes]]:
    """Sequences of blocks that are not what was written."""
    found = {"nothing": [], "one more": [*blocks, blocks[-1]], "an empty one": [*blocks[:2], b"", *blocks[2:]]}
    for place, block in enumerate(blocks):
        found[f"without {place}"] = blocks[:place] + blocks[place + 1 :]
        found[f"{place} twice"] = [*blocks[: place + 1], *blocks[place:]]
        found[f"{place} and the next the other way round"] = (
            blocks[:place] + blocks[place : place + 2][::-1] + blocks[place + 2 :]
        )
        found[f"{place} cut"] = [*blocks[:place], block[:-1], *blocks[place + 1 :]]
        for at in range(len(block)):
            bit = 1 << (at * 5 + place) % 8
            flipped = block[:at] + bytes([block[at] ^ bit]) + block[at + 1 :]
            found[f"bit {bit} of byte {at} of {place}"] = [*blocks[:place], flipped, *blocks[place + 1 :]]
    del found[f"{len(blocks) - 1} and the next the other way round"]  # there is none
    return found


def test_whatever_is_not_what_was_written_is_refused_and_changes_nothing(small: Machine) -> None:
    """Blocks that are missing, doubled, in another order or cut, and any flipped bit."""
    node = machine_of(everything())
    state, timeline = node.state, node.timeline
    before = held(state)
    for what, blocks in damages(list(small.snapshot())).items():
        restoring = node.restoring()
        try:
            for block in blocks:
                restoring.feed(block)
            restoring.install()
        except FatalError:
            continue
        pytest.fail(f"{what}: taken")
    assert node.state is state
    assert node.timeline is timeline
    assert held(state) == before


def test_what_an_executor_of_somebody_elses_says_is_read_too() -> None:
    """Also where it has a word of the http executor's with another meaning."""
    hand = Hand()
    hand.lead()
    hand.put("theirs", executor={"type": "theirs", "async": "perhaps"})
    hand.put("http", executor={"type": "http", "async": True})
    for name in ("one", "other"):
        hand.put(name, executor={"type": "python", "handler": name})
    other = restored(machine_of(hand).snapshot())
    assert [other.state.policy(job.uid) for job in other.state.jobs.values()] == [
        hand.state.policy(job.uid) for job in hand.state.jobs.values()
    ]
    assert [other.state.policy(job.uid).is_async for job in other.state.jobs.values()] == [False, True, False, False]


def test_what_was_applied_is_never_taken_back() -> None:
    """A snapshot of an earlier index is of another log."""
    hand = everything()
    early = list(machine_of(hand).snapshot())
    hand.put("further")
    node = machine_of(hand)
    restoring = node.restoring()
    for block in early:
        restoring.feed(block)
    with pytest.raises(DamagedError, match=f"index {len(hand.log) - 1} .*{len(hand.log)} has been applied"):
        restoring.install()
    assert "further" in node.state.jobs


# ---- shared as before ------------------------------------------------------------------------------------------------


def footprint(machine: Machine) -> int:
    """Bytes of all objects that the state holds, each counted once."""
    seen: dict[int, Any] = {}
    pending = list(vars(machine.state).values())
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, dict):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, msgspec.Struct):
            pending += [getattr(one, field) for field in one.__struct_fields__]
        elif isinstance(one, Iterable) and not isinstance(one, str | bytes):
            pending += one
    return sum(map(sys.getsizeof, seen.values()))


def test_a_restored_state_takes_no_more_memory_than_one_that_entries_have_made(large: Machine) -> None:
    """Names, states, instants and policies that were one object are one again."""
    other = restored(large.snapshot())
    assert footprint(other) <= footprint(large)
    job = other.state.jobs["ended-0"]
    assert other.state.policy(job.uid) is large.state.policy(job.uid)
    runs = [run for runs in other.state.active.values() for run in runs.values()]
    assert all(run.job is other.state.by_uid[run.uid].name for run in runs)
    for words in (
        {id(word): word for run in runs for word in (run.cause, run.state, run.node) if word is not None},
        {id(word): word for run in runs for attempt in run.attempts for word in (attempt.node, attempt.state)},
    ):
        assert len(words) == len(set(words.values()))
    assert all(run.attempts[0].started_at is run.started_at for run in runs if run.attempt == 1 and run.attempts)


def test_a_policy_depends_on_what_it_is_looked_up_by() -> None:
    """Definitions that differ in any one field have each the policy that they mean, whichever was looked at before."""
    differing = {
        "timezone": "Europe/Berlin", "timeout": "2h", "kill_after": "6s", "start_deadline": "1h",
        "delivery": "at_least_once", "isolation": "continue", "retry": {"max_attempts": 3},
        "misfire": {"window": "1h"}, "overlap": {"policy": "allow"}, "placement": {"on": "any"}, "group": "g",
        "dst": {"gap": "skip"}, "hash_key": "k", "exclude": ["holidays"], "jitter": "1s",
        "start_at": "2030-01-01T00:00:00Z", "end_at": "2031-01-01T00:00:00Z", "max_runs": 3,
        "after": [{"job": "b", "on": "any"}], "join": "any", "labels": {"a": "b"}, "description": "d",
        "history": {"runs": 3}, "alerts": [{"on": "failed"}],
    }  # fmt: skip
    assert differing.keys() == definition.DEFAULTS.keys(), "a field of a definition is new: let it differ here"
    plain = {"schedule": "5 5 * * *", "executor": {"type": "http", "url": "http://127.0.0.1:9/"}}
    written = [plain, *({**plain, field: value} for field, value in differing.items())]
    written += [{**plain, "executor": NOOP}, {**plain, "executor": {"type": "http", "url": "http://127.0.0.1:8/"}}]
    meanings = Meanings()
    for stored in map(definition.canonical, written):
        job = Job("job", 1, 1, 1, 1, stored, 1, 1, 1)
        assert meanings.of(job) == definition.policy_of(stored)


def test_a_definition_that_cannot_be_read_is_named() -> None:
    """No log has taken it."""
    with pytest.raises(DamagedError, match="'job'"):
        Meanings().of(Job("job", 1, 1, 1, 1, b"\xc1", 1, 1, 1))


# ---- while the machine runs ------------------------------------------------------------------------------------------


class Watching:
    """An observer that remembers what it was told."""

    def __init__(self, look: Callable[[], int]) -> None:
        self.told: list[Any] = []
        self._look = look

    def state_changed(self, runs: Iterable[str]) -> None:
        self.told.append(sorted(runs))

    def state_replaced(self) -> None:
        self.told.append(self._look())


def test_observers_hear_of_a_snapshot_once_it_stands(small: Machine) -> None:
    """They see its state, and are told of later entries as ever."""
    hand = everything()
    node = new_machine()
    watching = Watching(lambda: node.state.index)
    node.observe(watching)
    restoring = node.restoring()
    for block in small.snapshot():
        restoring.feed(block)
    assert watching.told == []
    restoring.install()
    assert watching.told == [len(hand.log)]
    hand.done(Trigger("keyed", None))
    node.apply(len(hand.log), hand.log[-1])
    node.applied(len(hand.log))
    assert watching.told[1:] == [[f"m{len(hand.log):x}-0"]]


async def test_a_large_state_is_let_go_a_slice_a_turn(small: Machine) -> None:
    """To free a million records at once would stop the loop; but they do go."""
    node = new_machine()
    names = [f"job-{number}" for number in range(2 * RELEASE_SLICE)]
    node.state.jobs.update({name: Job(name, 1, 1, 1, 1, b"", 1, 1, 1) for name in names})
    first, last = node.state.jobs[names[0]], node.state.jobs[names[-1]]
    references = sys.getrefcount(first)
    restoring = node.restoring()
    for block in small.snapshot():
        restoring.feed(block)
    restoring.install()
    assert sys.getrefcount(first) == sys.getrefcount(last) == references
    turns = 0
    while sys.getrefcount(first) == references:
        await asyncio.sleep(0)
        turns += 1
        assert turns < 100
    assert sys.getrefcount(last) == references - 1
    assert turns > 2
