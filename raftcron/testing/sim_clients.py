"""Those who use a simulated cluster: they write and read as the HTTP interface does, and remember what they were told.

A client goes to whoever believes to lead.  What came of a write is one of three things: it stands at an index, it is
certainly not written, or nobody knows; then it is asked again under the same idempotency key.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from raftcron.core.codec import encode_entry
from raftcron.core.commands import Command, Done, Entry, Finish, Finished, PutGroup, Trigger
from raftcron.core.model import AT_LEAST_ONCE, AT_MOST_ONCE, ENDED, STARTED, SUCCEEDED, Key
from raftcron.errors import ConflictError, InvalidError, RaftcronError, UnavailableError, UnknownOutcomeError
from raftcron.runtime.requests import Requests, Span
from raftcron.runtime.service import Service
from raftcron.runtime.writes import Precondition, taken
from raftcron.testing import sim_checks
from raftcron.testing.chance import Chance
from raftcron.testing.sim_checks import Checks
from raftcron.testing.sim_rarer import Rarer
from raftcron.testing.sim_targets import CALL

if TYPE_CHECKING:
    from raftcron.testing.sim_node import Life

FIRING: dict[str, dict[str, Any]] = {
    "every-a": {"delivery": AT_MOST_ONCE},
    "every-b": {"delivery": AT_LEAST_ONCE, "retry": {"max_attempts": 5}},
    "every-c": {
        "delivery": AT_MOST_ONCE,
        "retry": {"max_attempts": 3, "backoff": "1s"},
        "overlap": {"policy": "allow"},
    },
    "every-d": {"delivery": AT_LEAST_ONCE, "misfire": {"grace": "2s", "window": "5s"}},
}
PLACEMENTS: tuple[dict[str, Any], ...] = (
    {"on": "leader"},
    {"on": "any"},
    {"on": "least_loaded", "priority": 80},
    {"on": "sticky"},
    {"on": "all"},
    {"shards": 3},
)
OVERLAPS: tuple[dict[str, Any], ...] = (
    {"policy": "queue", "queue": 3},
    {"policy": "replace"},
    {"policy": "skip"},
    {"policy": "allow", "max_running": 2},
    {},
)
MISFIRES: tuple[dict[str, Any], ...] = (
    {"policy": "skip", "grace": "1s"},
    {"policy": "all", "grace": "1s", "max": 5},
    {},
)
LONG: dict[str, dict[str, Any]] = {  # left to their targets
    "long-a": CALL | {"delivery": AT_MOST_ONCE, "retry": {"max_attempts": 3, "on": ["failed", "timed_out"]}},
    "long-b": CALL | {"delivery": AT_LEAST_ONCE, "overlap": {"policy": "allow"}},
}
COMMANDS = ("every-b", "every-c")  # run by a spawner, where there is one
COMMAND = {"executor": {"type": "shell", "command": "work"}}
BACKFILLED_MS = (3_000, 8_000)  # spans of firing jobs that are asked for again
BACKFILLED_YEARS = 3  # of those that fire once a year
YEAR_MS = 365 * 86_400_000
PARENT, CHAINED = "every-a", "then-a"
CHAINS = ("success", "failure", "any")  # which ends of the parent it follows
GROUP = "few"  # of the firing jobs, where runs are placed at all
STILL = tuple(f"still-{number}" for number in range(8))  # jobs that never fire by themselves
SCHEDULES = ("@every 1s", "@every 1s", "@every 2s", "*/3 * * * * *")
ANY = Precondition()
DOUBTS_KEPT = 100  # writes that are asked again

Operation = Callable[[Service, Key], Awaitable[Done]]


class Clients:
    """All of them."""

    def __init__(
        self,
        lives: dict[str, Life],
        checks: Checks,
        dice: Chance,
        places: Chance | None,
        mix: Chance | None,
        asks: Chance | None,
        rules: Chance | None,
        has_spawners: bool,
    ) -> None:
        """`places` draws where runs go; None: on the leader.  `mix` draws overlaps, misfires and chains, if any.

        `asks` draws what is asked of the past, and what is run again, if anything; then there are long runs too.
        `rules` draws what few jobs say and few clients ask for, if any do (sim_rarer.py).
        Where nodes have spawners, half of the firing jobs run commands.
        """
        self.checks = checks
        self.open_writes = 0
        self.is_calm = False  # leave the jobs that fire as they are
        self.counts: Counter[str] = checks.counts
        self._lives = lives
        self._dice = dice
        self._places = places
        self._mix = mix
        self._asks = asks
        self.rarer = None if rules is None else Rarer(lives, rules, self._write)
        self._firing = FIRING if asks is None else FIRING | LONG
        if has_spawners:
            self._firing = self._firing | {name: FIRING[name] | COMMAND for name in COMMANDS}
        self._large_share = dice.choice([0.0, 0.0, 0.03])
        self._markers = 0
        self._doubts: deque[tuple[str, str, Operation]] = deque(maxlen=DOUBTS_KEPT)
        self._in_doubt: set[str] = set()
        self._revisions: dict[str, int] = {}  # job -> index of its last acknowledged write

    def leaders(self) -> list[Life]:
        """Who believes to lead, and may propose."""
        return [
            life
            for life in self._lives.values()
            if life.is_started and not life.is_ending and life.log.leading_epoch is not None
        ]

    # ---- what they write

    def put_firing(self) -> None:
        """Create those of the firing jobs that are not there."""
        for life in self.leaders()[:1]:
            if self._places is not None and GROUP not in life.machine.state.groups:
                self._write(life, "", self._put_group)
            for name in self._firing:
                if name not in life.machine.state.jobs:
                    self._write(life, name, self._put(name))
            if self._mix is not None and CHAINED not in life.machine.state.jobs and PARENT in life.machine.state.jobs:
                self._write(life, "", self._chain(self._mix.choice(CHAINS)))
            if self.rarer is not None:
                self.rarer.put_missing(life)

    def write_something(self) -> None:
        """A client writes on each node that believes to lead."""
        for life in self.leaders():
            if self._doubts and self._dice.random() < 0.3:
                marker, name, operation = self._doubts.popleft()
                self._ask(life, marker, name, operation)
            elif not self.is_calm and self._dice.random() < 0.1:
                life.loop.call_later(self._until_due(life), self._edit_firing, life)
            elif self._dice.random() < 0.01:
                life.loop.create_task(self._propose_odd(life))
            else:
                self._write_some(life)
            if self._asks is not None and not self.is_calm and self._asks.random() < 0.12:
                self._ask_for_more(life, self._asks)
            if self.rarer is not None and not self.is_calm and self.rarer.is_asked():
                self.rarer.ask(life, tuple(self._firing))

    def write(self, life: Life, operation: Operation) -> None:
        """Somebody else's write, remembered like all others."""
        self._write(life, "", operation)

    def run_many(self, count: int) -> None:
        """Many writes at once, none of which makes another one stale."""
        for life in self.leaders():
            for _ in range(count):
                self._write(life, "", self._run(self._dice.choice(STILL)))

    def write_still(self) -> None:
        """One write that nothing stands against."""
        for life in self.leaders()[:1]:
            self._write(life, "still-0", self._put("still-0"))

    def delete_all(self) -> None:
        for life in self.leaders()[:1]:
            for name in list(life.machine.state.jobs):
                self._write(life, name, self._delete(name))

    def _write_some(self, life: Life) -> None:
        dice, state = self._dice, life.machine.state
        name = dice.choice(STILL if dice.random() < 0.75 or self.is_calm else tuple(self._firing))
        job, what = state.jobs.get(name), dice.random()
        if job is None or what < 0.5:
            operation = self._put(name)
        elif what < 0.6:
            patch = {"description": f"{what}"}
            operation = lambda service, key: service.patch_job(name, patch, ANY, key)  # noqa: E731
        elif what < 0.7:
            if name in self._firing and dice.random() < 0.7:
                return
            operation = self._delete(name)
        elif what < 0.85 and job.paused:
            operation = lambda service, key: service.resume_job(name, None, ANY, key)  # noqa: E731
        elif what < 0.85:
            operation = lambda service, key: service.pause_job(name, None, ANY, key)  # noqa: E731
        elif (
            what < 0.9
            and not self.is_calm
            and (active := [run.id for run in state.runs.values() if run.state not in ENDED])
        ):
            run = dice.choice(active)
            operation = lambda service, key: _requests(service).cancel(run, key)  # noqa: E731
        else:
            operation = self._run(name)
        self._write(life, name if what < 0.7 else "", operation)  # of the others not each changes the revision

    def _ask_for_more(self, life: Life, dice: Chance) -> None:
        """Runs for times that are past, or again what an ended run was for."""
        state = life.machine.state
        ended = [run.id for run in state.runs.values() if run.state in ENDED]
        names = [name for name in (*self._firing, *STILL) if name in state.jobs]
        if ended and dice.random() < 0.5:
            body = {"overlap": dice.choice([None, None, "allow"])}
            self._write(life, "", self._again(dice.choice(ended), {k: v for k, v in body.items() if v is not None}))
        elif names:
            name, now = dice.choice(names), life.time.now_ms()
            span = dice.choice(BACKFILLED_MS) if name in self._firing else BACKFILLED_YEARS * YEAR_MS
            self._write(life, "", self._backfill(name, Span(now - span, now, False)))

    def _again(self, run: str, body: dict[str, Any]) -> Operation:
        async def rerun(service: Service, key: Key) -> Done:
            done = await _requests(service).rerun(run, body, key)
            self.counts["runs asked for again"] += 1
            return done

        return rerun

    def _backfill(self, name: str, span: Span) -> Operation:
        async def backfill(service: Service, key: Key) -> Done:
            filled = await _requests(service).backfill(name, span, key)
            assert filled.done is not None, "it was no dry run"
            self.counts["runs of the past asked for"] += len(filled.runs)
            return filled.done

        return backfill

    def _until_due(self, life: Life) -> float:
        """Seconds until jobs fall due by this node's clock; a little more, to come between plan and decision."""
        passed = life.time.now_ms() % 1000 / 1000
        return 1.0 - passed + self._dice.choice([0.0, 0.0005, 0.001, 0.002])

    def _edit_firing(self, life: Life) -> None:
        if not life.loop.is_dead and not self.is_calm:
            name, what = self._dice.choice(tuple(self._firing)), self._dice.random()
            if what < 0.3:
                self._write(life, "", lambda service, key: service.pause_job(name, None, ANY, key))
            else:
                self._write(life, name, self._put(name) if what < 0.9 else self._delete(name))

    def _put(self, name: str) -> Operation:
        body = {
            "schedule": self._dice.choice(SCHEDULES) if name in self._firing else "@yearly",
            "executor": {"type": "noop"},
            "description": str(self._markers),
            **self._firing.get(name, {}),
        }
        if self._mix is not None and name in self._firing:
            for field, choices in (("overlap", OVERLAPS), ("misfire", MISFIRES)):
                body[field] = {**body.get(field, {}), **self._mix.choice(choices)}
        is_grouped = False
        if self._places is not None:
            body["placement"], is_grouped = self._places.choice(PLACEMENTS), self._places.random() < 0.5
        rarer = self.rarer if name in self._firing else None
        wish = None if rarer is None else rarer.add_to(body)

        def put(service: Service, key: Key) -> Awaitable[Done]:
            grouped = {"group": GROUP} if is_grouped and GROUP in service._machine.state.groups else {}
            if rarer is not None and wish is not None:
                return rarer.put(name, body | grouped, wish)(service, key)
            return service.put_job(name, body | grouped, ANY, key)

        return put

    def _chain(self, end: str) -> Operation:
        body = {"schedule": "@manual", "executor": {"type": "noop"}, "after": [{"job": PARENT, "on": end}]}
        return lambda service, key: service.put_job(CHAINED, body, ANY, key)

    @staticmethod
    async def _put_group(service: Service, key: Key) -> Done:
        return taken(await service.write(key, lambda: PutGroup(GROUP, 4, None, key)))

    def _delete(self, name: str) -> Operation:
        cancels = self._dice.random() < 0.3
        return lambda service, key: service.delete_job(name, cancel_running=cancels, precondition=ANY, key=key)

    def _run(self, name: str) -> Operation:
        """Most writes are small; some fill a batch of the log's, or several."""
        is_large = self._dice.random() < self._large_share
        args = {"args": "x" * self._dice.choice([2_000, 20_000, 60_000])} if is_large else None
        return lambda service, key: _requests(service).run(name, args, key)

    async def _propose_odd(self, life: Life) -> None:
        """What a leader does not put into its log: no command, one of another epoch, the report of an older attempt."""
        epoch = life.log.leading_epoch
        if epoch is None:
            return
        odd = self._dice.choice(["noise", "cut", "epoch", "token"])
        stamped = epoch - 1 if odd == "epoch" else epoch
        command: Command = Trigger("every-a", None, None, False, None)
        started = [run for runs in life.machine.state.on_node.values() for run in runs.values() if run.state in STARTED]
        if odd == "token" and started:
            run = self._dice.choice(started)
            command = Finish([Finished(run.id, run.fencing_token - 1, SUCCEEDED)])
        body = encode_entry(Entry(stamped, life.time.now_ms(), command))
        if odd == "noise":
            body = body[:1] + self._dice.randbytes(20)
        elif odd == "cut":
            body = body[:-3]
        self.counts[f"odd entries: {odd}"] += 1
        with suppress(RaftcronError):
            await life.log.propose(body, epoch)

    # ---- what they are told

    def _write(self, life: Life, name: str, operation: Operation) -> None:
        self._markers += 1
        self._ask(life, f"w{self._markers}", name, operation)

    def _ask(self, life: Life, marker: str, name: str, operation: Operation) -> None:
        self.open_writes += 1
        life.loop.create_task(self._take(life, marker, name, operation)).add_done_callback(self._answered)

    def _answered(self, _task: object) -> None:
        self.open_writes -= 1

    async def _take(self, life: Life, marker: str, name: str, operation: Operation) -> None:
        checks, is_first = self.checks, marker not in self._in_doubt
        self._in_doubt.add(marker)  # until the answer is there
        try:
            done = await operation(life.service, Key(marker, marker.encode(), 0, 0, 0))
        except UnknownOutcomeError:
            self.counts["unknown"] += 1
            self._doubts.append((marker, name, operation))
        except RaftcronError as error:
            if life.loop.is_dead:
                return
            if not is_first:
                if isinstance(error, UnavailableError | ConflictError):
                    self._doubts.append((marker, name, operation))
                return
            self._in_doubt.discard(marker)
            self.counts[f"answer {error.code}"] += 1
            if isinstance(error, InvalidError):
                checks.fail(sim_checks.NOISE, f"what clients write is not valid: {error}")
            checks.refuse(marker)
        else:
            if not life.loop.is_dead:
                self.counts["answers from keys"] += done.replayed
                checks.acknowledge(marker, done.index, life.term_of(done.index))
                if name:
                    self._revisions[name] = max(done.index, self._revisions.get(name, 0))

    # ---- what they read

    def read_something(self) -> None:
        """A linearizable read, as often as not on a node that believes to lead."""
        ready = [life for life in self._lives.values() if life.is_started]
        asked = self.leaders() if self._dice.random() < 0.5 else ready
        if asked:
            self.read_at(self._dice.choice(asked))

    def read_at(self, life: Life) -> None:
        """A linearizable read on this node."""
        if not life.loop.is_dead:
            life.loop.create_task(self._read(life, self._dice.choice(STILL)))

    async def _read(self, life: Life, name: str) -> None:
        before, written = self.checks.acknowledged_index, self._revisions.get(name, 0)
        try:
            index = await life.log.read_index()
        except UnavailableError:
            self.counts["reads refused"] += 1
            return
        job = life.machine.state.jobs.get(name)
        revision = None if job is None else job.revision
        self.checks.read(before, index, life.log.status().applied_index, name, written, revision)


def _requests(service: Service) -> Requests:
    return Requests(machine=service._machine, time=service._time, service=service)
