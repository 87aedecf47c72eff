"""Those whom a simulated cluster calls: they answer 202, work on by themselves, and say through any node how it ended.

Some end what they were given before their answer is on record, some too late, twice, under an older token, or never;
some are heard several times first.  `Entrusted` is what must hold of runs that are with their targets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from raftcron.core import commands as c
from raftcron.core.model import CANCELLED, FAILED, LOST, STARTED, SUCCEEDED, Key, Run
from raftcron.errors import RaftcronError
from raftcron.ports import Attempt, Ending
from raftcron.runtime.requests import Requests
from raftcron.runtime.service import Service
from raftcron.testing.chance import Chance, chance

if TYPE_CHECKING:
    from raftcron.testing.sim_clients import Clients
    from raftcron.testing.sim_loop import Conductor
    from raftcron.testing.sim_network import Network
    from raftcron.testing.sim_node import Life

TIMEOUT_SECONDS = 4.0  # of the jobs whose runs are left to targets
CALL: dict[str, Any] = {
    "executor": {"type": "http", "url": "http://192.0.2.1/work", "async": True},
    "timeout": f"{TIMEOUT_SECONDS:g}s",
}
ACCEPTED = 202
AGAIN_SECONDS = 0.7  # after a node that could not take the word
TRIES = 8

ENTRUSTED = "an asynchronous run belongs to its target"


class Word(NamedTuple):
    """What a target says; `state` None: it is at work."""

    after: float  # seconds since it was called
    state: str | None = None
    is_old: bool = False  # under a token that is not its own


PLANS: dict[str, tuple[Word, ...]] = {
    "ends it": (Word(1.5, SUCCEEDED),),
    "fails": (Word(0.8, FAILED),),
    "ends it at once": (Word(0.0, SUCCEEDED),),
    "ends it too late": (Word(TIMEOUT_SECONDS + 1.0, SUCCEEDED),),
    "is silent": (),
    "is heard": (*(Word(1.5 * number) for number in range(1, 5)), Word(7.0, SUCCEEDED)),
    "says it twice": (Word(1.0, SUCCEEDED), Word(1.3, FAILED)),
    "has an old token": (Word(0.6, is_old=True), Word(0.7, FAILED, is_old=True), Word(2.0, SUCCEEDED)),
}


class Targets:
    """All of them."""

    def __init__(
        self, seed: int, conductor: Conductor, network: Network, lives: dict[str, Life], clients: Clients
    ) -> None:
        self._seed = seed
        self._conductor = conductor
        self._network = network
        self._lives = lives
        self._clients = clients
        self._counts: Counter[str] = clients.counts
        self._checks = clients.checks

    def call(self, attempt: Attempt) -> tuple[float, Ending]:
        """A target has read a request: after how many seconds it answers, and what.  It may be at work from now on."""
        dice = chance(self._seed, f"target/{attempt.run_id}/{attempt.attempt}/{attempt.fencing_token}")
        seconds = dice.choice([0.001, 0.1, 0.5])
        if dice.random() < 0.1:
            return seconds, Ending("failed", status_code=500, error_kind="status")
        plan = dice.choice(sorted(PLANS))
        self._counts[f"targets: one {plan}"] += 1
        for word in PLANS[plan]:
            self._conductor.after(word.after + dice.uniform(0.0, 0.3), self._say, attempt, word, dice, TRIES)
        return seconds, Ending("taken_over", status_code=ACCEPTED)

    def _say(self, attempt: Attempt, word: Word, dice: Chance, tries: int) -> None:
        """Through some node, which asks whom it believes to lead; again a little later where that is in vain."""
        asked = self._asked(dice)
        if asked is not None:
            self._clients.write(asked, lambda service, key: self._speak(attempt, word, dice, tries, service, key))
        elif tries:
            self._conductor.after(AGAIN_SECONDS, self._say, attempt, word, dice, tries - 1)

    def _asked(self, dice: Chance) -> Life | None:
        """Who takes the word in the end: the leader that a node drawn knows of, if that one can hear it."""
        ready = [life for life in self._lives.values() if life.is_started]
        if not ready:
            return None
        life = dice.choice(ready)
        if life.log.leading_epoch is not None:
            return life
        leader = self._lives.get(life.log.status().leader or "")
        cuts = self._network.cuts
        if leader is None or not leader.is_started or {(life.name, leader.name), (leader.name, life.name)} & cuts:
            return None
        self._counts["targets: spoke through another node"] += 1
        return leader

    async def _speak(
        self, attempt: Attempt, word: Word, dice: Chance, tries: int, service: Service, key: Key
    ) -> c.Done:
        requests = Requests(machine=service._machine, time=service._time, service=service)
        token = attempt.fencing_token - word.is_old
        try:
            if word.state is None:
                done = await requests.hear(attempt.run_id, {"token": token}, key)
            else:
                done = await requests.conclude(attempt.run_id, {"token": token, "state": word.state}, key)
        except RaftcronError as error:
            self._counts[f"targets: answer {error.code}{' under an old token' if word.is_old else ''}"] += 1
            if error.code == "unavailable" and tries:
                self._conductor.after(AGAIN_SECONDS, self._say, attempt, word, dice, tries - 1)
            raise
        self._checks.entrusted.told(attempt, word, done)
        return done


class _Entrusted(NamedTuple):
    """What was last seen of a run that is with its target."""

    token: int
    uid: int
    since: int  # cluster time at which it began, or its target was heard


class Entrusted:
    """Runs that their targets have taken over: what may end them, when, and by whose word."""

    def __init__(self, fail: Callable[[str, str], None], counts: Counter[str]) -> None:
        self._fail = fail
        self._counts = counts
        self._with_target: dict[str, _Entrusted] = {}
        self._ends: dict[tuple[str, int], str] = {}  # (run, token) -> how that attempt ended, as committed
        self._late: dict[str, str | None] = {}  # run -> what its target said of it once it was lost

    def of_job(self, uid: int) -> set[str]:
        """The job's runs that are with their targets."""
        return {run_id for run_id, one in self._with_target.items() if one.uid == uid}

    def follow(self, index: int, command: c.Command, at: int, run: Run) -> None:
        """An entry has changed this run; `at` is cluster time."""
        self._late[run.id] = run.late_outcome
        for record in run.attempts:
            if record.finished_at is not None:
                self._ends[run.id, record.fencing_token] = record.state
        known = self._with_target.get(run.id)
        if known is not None and (known.token != run.fencing_token or run.state not in STARTED):
            del self._with_target[run.id]
            self._follow_end(index, type(command).__name__, at, run, known)
        elif run.answer_by is not None and run.state in STARTED:
            if known is None:
                self._counts["runs taken over by targets"] += 1
                known = _Entrusted(run.fencing_token, run.uid, run.started_at or at)
            self._with_target[run.id] = known

    def heard(self, run: str, at: int) -> None:
        """An entry has taken the word of a target that is at work; `at` is cluster time."""
        if run in self._with_target:
            self._with_target[run] = self._with_target[run]._replace(since=at)

    def _follow_end(self, index: int, by: str, at: int, run: Run, known: _Entrusted) -> None:
        """Its target ended it, or was not heard for the whole timeout, or somebody asked for its end."""
        ended, silent_ms = self._ends.get((run.id, known.token)), at - known.since
        self._counts[f"runs with targets that ended {ended}"] += 1
        match ended:
            case "timed_out":
                is_right = by == "TimeOut" and silent_ms > TIMEOUT_SECONDS * 1000
            case "succeeded" | "failed":
                is_right = by == "Conclude"
            case "cancelled":
                is_right = True
            case _:
                is_right = False
        if not is_right:
            self._fail(ENTRUSTED, f"{by} at {index} ends {run.id} ({ended}), {silent_ms} ms after its target spoke")

    def told(self, attempt: Attempt, word: Word, done: c.Done) -> None:
        """A target was told that its word is taken."""
        what = f"the word of the target of {attempt.run_id}, attempt {attempt.attempt}"
        if word.is_old:
            self._fail(ENTRUSTED, f"{what} is taken at {done.index} under a token that is older than its own")
        elif word.state is None:
            self._counts["targets: heard"] += 1
        else:
            self._counts["targets: ended it"] += 1
            ended = self._ends.get((attempt.run_id, attempt.fencing_token))
            if ended == LOST:
                self._counts["targets: late outcomes"] += 1
                ended = self._late[attempt.run_id]
            if ended != word.state and (ended, word.state) != (CANCELLED, FAILED):
                self._fail(ENTRUSTED, f"{what}, {word.state}, is taken at {done.index}, and it ended {ended}")
