"""The mended engine under seeded faults on virtual time: crashes, power cuts, cuts; safe all the way, and it heals."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftcron.raft import guard, seam
from tests.raft.virtual import Disk, World

SEEDS = range(20)
STEPS = 700  # of 10 ms, each seed


def sweep(seeds: range, steps: int) -> tuple[Counter[str], float]:
    """Runs the seeds; what they saw, and how many virtual seconds the slowest needed to heal."""
    seen: Counter[str] = Counter()
    slowest = 0.0
    for seed in seeds:

        async def story(world: World) -> None:
            nonlocal slowest
            for _ in range(steps):
                await world.step(faulty=True)
            slowest = max(slowest, await world.settle())

        world = World(seed)
        try:
            world.run(story)
        except AssertionError as error:
            raise AssertionError(f"seed {seed} at {world.loop.now - 1000:.2f} s: {error}") from error
        seen += world.counts
        seen["elections"] += len(world.leaders)
        seen["acknowledged"] += len(world.acknowledged)
        seen["not written"] += len(world.not_written)
        seen["unknown"] += len(world.unknown)
    return seen, slowest


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A few commands a batch, so that pipelines are long; and no log lines, since nodes come and go all the time."""
    monkeypatch.setattr(seam, "BATCH_BYTES", 200)
    logger = logging.getLogger("raftcron.raft")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def test_every_seed_is_safe_and_heals_and_saw_every_fault() -> None:
    """One history, true match indexes, nothing acknowledged is lost, nothing answered 503 is written, and all nodes
    stand at one index soon after the faults; a sweep that missed a fault or a branch of the guard proves nothing."""
    seen, slowest = sweep(SEEDS, STEPS)
    assert slowest < 5.0
    for what in (
        "crashes",
        "power cuts",
        "cuts",
        "isolations",
        "elections",
        "entry missing",
        "term differs",
        "conflict cut",
        "held entries skipped",
        "tail left alone",
        "rewound",
        "late refusal",
        "answer of another term",
        "not written",
        "unknown",
        "reads",
        "reads refused",
    ):
        assert seen[what] > 0, f"inconclusive, {what!r} never happened: {dict(seen)}"
    assert seen["acknowledged"] > 200 * len(SEEDS)


def test_a_node_with_a_term_of_its_own_is_not_stuck_for_ever() -> None:
    """Row 14: it won its pre-vote, stored its term and was cut off; its answer brings the leader to the new term."""

    async def story(world: World) -> None:
        while not world.converged() or not world.agreed:
            await world.step(faulty=False, load=0)
        lonely = next(name for name in world.names if world.engines[name].status().role == "follower")
        for peer in set(world.names) - {lonely}:
            world.network.cuts[frozenset((lonely, peer))] = world.loop.now
        world.engines[lonely]._core.start_election()
        for _ in range(500):
            world.network.step()
            world.propose(1)
            await asyncio.sleep(0.01)
        assert world.engines[lonely].status().term == 2
        assert await world.settle() < 2.0

    world = World(1)
    world.run(story)
    assert world.counts["append of a former term"] > 0
    assert max(world.leaders) > 2


TERM = 2**62
SAID = [  # whatever may make a node adopt a term
    ("raft", {"type": "request_vote", "term": TERM, "last_log_index": 2**40, "last_log_term": TERM}),
    ("raft", {"type": "response_vote", "term": TERM}),
    ("raft", {"type": "timeout_now", "term": TERM}),
    ("raft", {"type": "next_node_idx", "term": TERM, "next_node_idx": 1, "reset": True, "success": False, "probe": 0}),
    (
        "raft",
        {
            "type": "append_entries",
            "term": TERM,
            "commit_index": 0,
            "prevLogIdx": 1,
            "prevLogTerm": 0,
            "probe": 0,
            "entries": [],
        },
    ),
    (
        "raft",
        {
            "type": "offer",
            "term": TERM,
            "probe": 0,
            "id": "1-1-" + "a" * 32,
            "index": 1,
            "entry_term": 1,
            "size": 10_000,
            "cluster_id": "a",
            "configuration": b"",
        },
    ),
    ("prevoted", {"term": TERM, "round": 1, "granted": False}),
    ("echo", {"term": TERM, "number": 1}),
]


@pytest.mark.parametrize(("kind", "message"), SAID, ids=[str(said.get("type", kind)) for kind, said in SAID])
def test_a_term_that_none_could_follow_is_adopted_by_nobody(kind: str, message: dict[str, Any]) -> None:
    """A member that is wrong, or worse, says it to everybody: no term moves, and the cluster goes on."""

    async def story(world: World) -> None:
        while not world.converged() or not world.agreed:
            await world.step(faulty=False, load=0)
        terms = {engine.status().term for engine in world.engines.values()}
        for name, engine in world.engines.items():
            for liar in set(world.names) - {name}:
                engine._transport.handler.on_message(liar, kind, message)  # type: ignore[attr-defined]
                engine._transport.handler.on_batch_end()  # type: ignore[attr-defined]
        acknowledged = len(world.acknowledged)
        for _ in range(100):
            await world.step(faulty=False, load=1)
        assert {engine.status().term for engine in world.engines.values()} == terms
        assert len(world.acknowledged) > acknowledged
        assert {engine._inbox.bad_messages.total() for engine in world.engines.values()} == {2}

    World(1).run(story)


def test_a_seed_repeats_exactly() -> None:
    """The same seed gives the same story, so that a failure can be looked at."""
    assert sweep(range(3, 4), 500) == sweep(range(3, 4), 500)


def test_an_answer_before_the_sync_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 5 switched off: a disk that only pretends to sync makes the checker speak."""

    def flush(self: seam.Core) -> None:
        waiting, self._waiting = self._waiting, []
        for node, message in waiting:
            self._host.transmit(node.id, message)

    monkeypatch.setattr(seam.Core, "flush", flush)
    with pytest.raises(AssertionError, match="has not synced"):
        sweep(range(2), 500)


def test_the_engine_s_own_cut_and_rewind_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 2 switched off: whatever follows the previous entry is cut, and every success rewinds."""
    judge_append, judge_answer = guard.judge_append, guard.judge_answer

    def append(log: guard.LogView, committed: int, message: guard.AppendEntries) -> guard.Refusal | guard.Acceptance:
        verdict = judge_append(log, committed, message)
        if isinstance(verdict, guard.Refusal):
            return verdict
        return verdict._replace(agreed=message.previous_index, entries=message.entries, conflict=True)

    def answer(given: guard.Answer, probe: int, match: int, following: int, last: int) -> guard.Progress:
        progress = judge_answer(given, probe, match, following, last)
        return progress._replace(next_index=given.next_index) if given.success else progress

    monkeypatch.setattr(guard, "judge_append", append)
    monkeypatch.setattr(guard, "judge_answer", answer)
    with pytest.raises(AssertionError, match=r"counted for|cannot be cut|the log is cut from"):
        sweep(range(2), 500)


def test_contradicting_refusals_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 15 switched off: one index for "missing", another for "differs", and every refusal rewinds: a livelock."""
    judge_append, judge_answer = guard.judge_append, guard.judge_answer

    def append(log: guard.LogView, committed: int, message: guard.AppendEntries) -> guard.Refusal | guard.Acceptance:
        verdict = judge_append(log, committed, message)
        if isinstance(verdict, guard.Refusal):
            last = log[-1][1]
            return guard.Refusal(last + 1 if message.previous_index > last else message.previous_index)
        return verdict

    def answer(given: guard.Answer, probe: int, match: int, following: int, last: int) -> guard.Progress:
        return judge_answer(given._replace(probe=probe), probe, match, following, last)

    monkeypatch.setattr(guard, "judge_append", append)
    monkeypatch.setattr(guard, "judge_answer", answer)
    with pytest.raises(AssertionError, match=r"applied \d+ of \d+"):
        sweep(range(3, 4), 500)


def test_a_disk_forgets_what_was_not_synced() -> None:
    """The double behaves: of a crashed disk only synced bytes come back."""
    disk, path = Disk(), Path("/segment")
    handle = disk.create(path)
    disk.write(handle, b"kept")
    disk.sync(handle)
    disk.write(handle, b"lost")
    assert disk.crashed().read(path) == b"kept"
