"""A simulated cluster with one job and nothing else to do: what is done to it, and when, is up to the one who asks.

Not here: load and drawn faults, which are those of a seed (raftcron/testing/sim_story.py).  The checkers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple, Self

from raftcron.core.codec import decode_entry, encode_entry
from raftcron.core.commands import Command, Entry
from raftcron.core.model import ENDED, Key, Run
from raftcron.core.policy import start_deadline
from raftcron.errors import DamagedError, RaftcronError
from raftcron.ports import Attempt
from raftcron.raft.settings import CompactionSettings
from raftcron.runtime.leases import LeaseTimes
from raftcron.runtime.writes import Precondition
from raftcron.testing import sim_checks
from raftcron.testing.sim_cluster import Cluster
from raftcron.testing.sim_loop import START_WALL
from raftcron.testing.sim_node import Life
from raftcron.testing.sim_processes import Course

JOB = "job"
COMMAND = {"type": "shell", "command": "work"}
LATE = "no start after its deadline"  # beside the checkers that all simulations have
LATE_MS = 100
SHORT = LeaseTimes(3.0, 0.6)
FORM_SECONDS = 10.0  # at most
STEP_SECONDS = 0.0005
QUIET_SECONDS = 25.0  # at most, until all has its end
DYING_SECONDS = 0.5  # user code that is told to stop takes so long: a kill is not instant, and the margin covers it


class Step(NamedTuple):
    """An entry of the log that has changed a run, and what the run is after it."""

    command: str
    at: float  # when the first node applied it
    run: str
    state: str
    attempt: int
    token: int
    node: str | None
    leader: str


class Stage:
    """Three nodes, one job, and a record of what becomes of its runs."""

    def __init__(
        self,
        seed: int,
        job: dict[str, Any],
        *,
        code: Callable[[Attempt], tuple[float, bool]],
        times: LeaseTimes = SHORT,
        compaction: CompactionSettings | None = None,
        is_spawned: bool = False,
    ) -> None:
        """`code` says of each attempt how many seconds it takes, and whether it fails; `is_spawned`: by a spawner."""
        self.cluster = Cluster(seed, 3, times)
        self.steps: list[Step] = []
        self.starts: list[tuple[str, int, str]] = []  # (run, attempt, node) of user code
        self._job = {"executor": COMMAND if is_spawned else {"type": "noop"}, **job}
        self._code = code
        self._seen: dict[str, tuple[str, int, int]] = {}
        self._highest = 0
        self._check = self.cluster.checks.after
        self._keys = 0
        self.cluster.checks.after = self._after  # type: ignore[method-assign]
        self.cluster._setting = self.cluster._setting._replace(
            course=self._course,
            compaction=CompactionSettings() if compaction is None else compaction,
            has_spawners=is_spawned,
        )

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        for name in self.cluster.names:
            self.cluster.boot(name)
        self.until(lambda: self._is_formed(), FORM_SECONDS, "no cluster has formed", 0.05)
        leader = self.leader()
        put = leader.loop.create_task(leader.service.put_job(JOB, self._job, Precondition(), self.key()))
        self.until(put.done, 1.0, "the job was not put", 0.05)
        put.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cluster.__exit__(kind, error, trace)

    # ---- who there is

    def leader(self) -> Life:
        """Who leads in the highest term."""
        leaders = self.cluster.clients.leaders()
        assert leaders, self.cluster.where()
        return max(leaders, key=lambda life: life.log.status().term)

    def life(self, name: str) -> Life:
        return self.cluster.lives[name]

    def others(self, *names: str) -> list[str]:
        return [name for name in self.cluster.names if name not in names]

    def key(self) -> Key:
        """Of a write that is made once."""
        self._keys += 1
        return Key(f"k{self._keys}", b"%d" % self._keys, 0, 0, 0)

    def run(self) -> Run:
        """The job's oldest run, as whoever has applied most has it."""
        return min(self.cluster._newest().runs.values(), key=lambda run: run.scheduled_time)

    # ---- time

    def until(self, is_so: Callable[[], bool], seconds: float, otherwise: str, step: float = STEP_SECONDS) -> None:
        """Let time pass until it is so.  Raises Violation; AssertionError with `otherwise` if it never is."""
        end = self.cluster.now + seconds
        while not is_so():
            assert self.cluster.now < end, f"{otherwise}: {self.cluster.where()}"
            self.cluster.run(step)

    def until_step(self, command: str, *, state: str | None = None, count: int = 1) -> Step:
        """Let time pass until so many such entries have changed runs; the last of them."""

        def found() -> list[Step]:
            return [step for step in self.steps if step.command == command and state in (None, step.state)]

        self.until(lambda: len(found()) >= count, 12.0, f"no {command}; there were {self.steps}")
        return found()[count - 1]

    # ---- what is done to it

    def cut(self, *names: str) -> None:
        """These hear nobody, and nobody hears them."""
        for name in names:
            for other in self.cluster.names:
                if other != name:
                    self.cluster.network.cut(name, other)
                    self.cluster.network.cut(other, name)

    def lose(self, *names: str) -> None:
        """As `cut`, and what is on its way never arrives."""
        self.cut(*names)
        for name in names:
            for other in self.cluster.names:
                if other != name:
                    self.cluster.network.sever(name, other)

    def propose(self, life: Life, command: Command) -> None:
        """As a leader stamps what it is asked for."""
        epoch = life.log.leading_epoch
        assert epoch is not None
        life.loop.create_task(_let_go(life, encode_entry(Entry(epoch, life.time.now_ms(), command)), epoch))

    def heal(self) -> None:
        """All faults end."""
        self.cluster.network.heal()
        for life in self.cluster.lives.values():
            life.loop.resume()
        for name in self.cluster.names:
            self.cluster.boot(name)

    def settle(self, seconds: float = QUIET_SECONDS) -> None:
        """Everything has an end, and all nodes stand at one index (I15); then the checks of a seed's end."""
        cluster, end = self.cluster, self.cluster.now + seconds
        while cluster.now < end and not self._is_over():
            cluster.run(0.25)
        if not self._is_over():
            left = [f"{run.id} {run.state}" for run in self.cluster._newest().runs.values() if run.state not in ENDED]
            cluster.checks.fail(sim_checks.LIVENESS, f"{cluster.where()}; without an end: {left}")
        states = {name: life.machine.state for name, life in cluster.lives.items()}
        for state in states.values():
            cluster.checks.conserve(state)
        cluster.checks.close(states)
        cluster.run(0.0)

    # ---- details

    def _is_formed(self) -> bool:
        leaders = self.cluster.clients.leaders()
        return len(leaders) == 1 and len(leaders[0].machine.state.nodes) == len(self.cluster.names)

    def _is_over(self) -> bool:
        newest = self.cluster._newest()
        return (
            bool(newest.runs)
            and all(run.state in ENDED for run in newest.runs.values())
            and self.cluster.is_settled()
            and bool(self.cluster.clients.leaders())
        )

    def _course(self, node: str, attempt: Attempt) -> Course:
        self.starts.append((attempt.run_id, attempt.attempt, node))
        self._expect_in_time(attempt)
        seconds, fails = self._code(attempt)
        return Course(seconds, fails, DYING_SECONDS)

    def _expect_in_time(self, attempt: Attempt) -> None:
        state = self.cluster._newest()
        run = state.runs[attempt.run_id]
        late = (START_WALL + self.cluster.now) * 1000 - start_deadline(state.policy(run.uid), run)
        if late > LATE_MS:
            self.cluster.checks.fail(LATE, f"{run.id} starts {late:.0f} ms after its start deadline")

    def _after(self, node: str, index: int, body: bytes, state: Any, outcome: Any) -> None:
        self._check(node, index, body, state, outcome)
        if index <= self._highest:
            return
        self._highest = index
        with suppress(DamagedError):
            command = type(decode_entry(body).command).__name__
            for run in state.runs.values():
                seen = (run.state, run.attempt, run.fencing_token)
                if self._seen.get(run.id) != seen:
                    self._seen[run.id] = seen
                    self.steps.append(Step(command, self.cluster.now, run.id, *seen, run.node, state.leader))


async def _let_go(life: Life, body: bytes, epoch: int) -> None:
    with suppress(RaftcronError):
        await life.log.propose(body, epoch)


def pairs(steps: Iterable[Step]) -> list[tuple[Step, Step]]:
    """Adjacent entries of a run."""
    return list(pairwise(steps))
