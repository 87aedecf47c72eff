"""Mends and guards of raftcron, each with a switch that turns it off, to see that the simulation's checkers can fail.

`MUTANTS` names, for each, the checkers that may fire and a recorded seed in which one does.  When a change moves the
traces, `python -m tests.simulation.mutants NAME...` looks for new seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from raftcron.core.apply import decisions, jobs
from raftcron.errors import UnavailableError
from raftcron.raft import guard, membership, proposals, reads, seam
from raftcron.raft.journal import Journal
from raftcron.runtime import leases, worker
from raftcron.testing import sim_checks
from raftcron.testing.sim_faults import Story

SEEDS_TRIED = 100
OTHERS_TOLERATED = 4  # seeds in which another checker fires first


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while."""
    former = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, former)


# ---- the log -----------------------------------------------------------------------------------------------------


def _flush_without_sync(self: Any) -> None:
    """Core.flush, but what was received is answered before it is durable."""
    waiting, self._waiting = self._waiting, []
    for node, message in waiting:
        if message["term"] == self.term:
            self._host.transmit(node.id, message)
    if self._verified_commit > self._SyncObj__raftCommitIndex and not self.is_leader:
        self._SyncObj__raftCommitIndex = self._verified_commit


def _append_cuts_whatever_follows(log: Any, committed: int, append: Any) -> Any:
    """guard.judge_append, but as the stock engine judges: what follows goes, conflict or not (row 2)."""
    verdict = _judge_append(log, committed, append)
    if (
        isinstance(verdict, guard.Acceptance)
        and verdict.acknowledged < log[-1][1]
        and append.previous_index > committed
    ):
        return guard.Acceptance(append.previous_index, append.entries, verdict.acknowledged, True)
    return verdict


def _append_claims_all(log: Any, committed: int, append: Any) -> Any:
    """guard.judge_append, but an acknowledgement claims all that is held, checked or not (row 2)."""
    verdict = _judge_append(log, committed, append)
    if isinstance(verdict, guard.Acceptance) and not verdict.conflict:
        return verdict._replace(acknowledged=max(verdict.acknowledged, log[-1][1]))
    return verdict


def _answer_never_rewinds(answer: Any, probe: int, match_index: int, next_index: int, last_index: int) -> Any:
    """guard.judge_answer, but refusals change nothing (row 15)."""
    return _judge_answer(answer._replace(reset=False), probe, match_index, next_index, last_index)


def _answers_of_any_term(self: Any, node: Any, answer: Any) -> None:
    """Core._take_answer, but an answer of an earlier term is believed (row 4)."""
    _take_answer(self, node, answer._replace(term=max(answer.term, self.term)))


def _expire_says_not_written(self: Any, now: float) -> None:
    """Proposals.expire, but what is not known is called not written."""
    for seq in self._first(lambda pending: pending.due_at <= now):
        if (future := self._pop(seq)) is not None:
            future.set_exception(UnavailableError("not written, perhaps"))


def _round_without_a_quorum(self: Any, number: int) -> None:
    """Reads._begin_round, but the leader asks nobody."""
    self._rounds.answer(number, self._core.commit_index if self._may_confirm() else None)


def _vote_forgotten(self: Any, term: int, voted_for: str | None) -> None:
    """Journal.setCurrentTerm, but nothing of it is durable."""
    self._term, self._voted_for = term, voted_for


def _everybody_is_admitted(self: Any, hello: Any, connected_disk: str | None) -> None:
    """Membership.admit, but a wiped disk is no stranger."""


def _anybody_votes(self: Any, is_empty: bool) -> bool:
    """Membership.may_vote, but a node that holds nothing votes at once."""
    return True


_judge_append, _judge_answer, _take_answer = guard.judge_append, guard.judge_answer, seam.Core._take_answer


# ---- jobs and runs -----------------------------------------------------------------------------------------------


def _holds_below_the_watermark(job: Any, decision: Any) -> bool:
    """decisions.holds, but what is decided already is decided again."""
    return decision.revision == job.revision and not job.paused


def _settle_below_the_watermark(state: Any, context: Any, job: Any, made: Any) -> None:
    """jobs._settle, likewise."""
    for decision in made:
        decisions.take(state, context, job, decision, None)


def _gate_is_open(self: Any, held: Any) -> bool:
    """Worker._is_valid, but any licence will do."""
    return True


def _heartbeats_without_a_round(self: Any, clock: Any, times: Any, read_index: Any) -> None:
    """LeaseKeeper, but a heartbeat is answered without a round of a majority."""

    async def at_once() -> int:
        return 0

    _keeper_init(self, clock, times, at_once)


_keeper_init = leases.LeaseKeeper.__init__


# ---- the table ---------------------------------------------------------------------------------------------------


class Mutant(NamedTuple):
    """`replacements` are (owner, name, value); `seed` is one in which one of `checkers` fires, None if not known."""

    replacements: list[tuple[Any, str, Any]]
    checkers: set[str]
    seed: int | None


LOG_CHECKERS = {sim_checks.MATCH, sim_checks.DURABLE, sim_checks.ONE_HISTORY, sim_checks.FATAL}

MUTANTS: dict[str, Mutant] = {
    "acknowledged before it is synced": Mutant([(seam.Core, "flush", _flush_without_sync)], LOG_CHECKERS, 0),
    "whatever follows is cut": Mutant([(guard, "judge_append", _append_cuts_whatever_follows)], LOG_CHECKERS, None),
    "all that is held is claimed": Mutant([(guard, "judge_append", _append_claims_all)], LOG_CHECKERS, 10),
    "refusals do not rewind": Mutant([(guard, "judge_answer", _answer_never_rewinds)], {sim_checks.LIVENESS}, 0),
    "answers of earlier terms count": Mutant([(seam.Core, "_take_answer", _answers_of_any_term)], LOG_CHECKERS, None),
    "unknown is called not written": Mutant(
        [(proposals.Proposals, "expire", _expire_says_not_written)], {sim_checks.NOT_WRITTEN}, None
    ),
    "reads without a round": Mutant(
        [(reads.Reads, "_begin_round", _round_without_a_quorum)], {sim_checks.LINEARIZABLE}, None
    ),
    "votes are forgotten": Mutant(
        [(Journal, "setCurrentTerm", _vote_forgotten)], {sim_checks.ONE_LEADER, *LOG_CHECKERS}, 7
    ),
    "an empty directory is admitted and votes": Mutant(
        [(membership.Membership, "admit", _everybody_is_admitted), (membership.Membership, "may_vote", _anybody_votes)],
        LOG_CHECKERS,
        2,
    ),
    "the watermark is not looked at": Mutant(
        [
            (decisions, "holds", _holds_below_the_watermark),
            (jobs, "holds", _holds_below_the_watermark),
            (jobs, "_settle", _settle_below_the_watermark),
        ],
        {sim_checks.I1, sim_checks.I5},
        0,
    ),
    "the start gate is open": Mutant(
        [(worker.Worker, "_is_valid", _gate_is_open)], {sim_checks.I6, sim_checks.I2}, None
    ),
    "heartbeats are answered without a round": Mutant(
        [(leases.LeaseKeeper, "__init__", _heartbeats_without_a_round)], {sim_checks.I6, sim_checks.I2}, None
    ),
}


@contextmanager
def switched_off(name: str) -> Iterator[None]:
    """Run without this mend."""
    todo = list(MUTANTS[name].replacements)

    @contextmanager
    def step(index: int) -> Iterator[None]:
        if index == len(todo):
            yield
            return
        owner, attribute, value = todo[index]
        with replaced(owner, attribute, value), step(index + 1):
            yield

    with step(0):
        yield


def find(name: str, say: Callable[[str], None] = print) -> int | None:
    """The first seed in which a checker that should fire does."""
    others = 0
    for seed in range(SEEDS_TRIED):
        if others > OTHERS_TOLERATED:
            break
        with switched_off(name):
            violation = Story(seed).run().violation
        if violation is not None:
            fits = violation.checker in MUTANTS[name].checkers
            say(f"{name}: seed {seed} {'' if fits else 'BUT '}{violation}"[:300])
            if fits:
                return seed
            others += 1
    say(f"{name}: not caught in {seed + 1} seeds")
    return None


if __name__ == "__main__":
    for mutant in sys.argv[1:] or list(MUTANTS):
        find(mutant)
