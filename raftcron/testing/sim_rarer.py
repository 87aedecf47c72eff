"""What few jobs say, and what clients ask for now and then: the rules beside schedule, overlap and misfire.

Jobs are spread by jitter, bounded in time and number, follow the ends of their runs, spare the times of calendars, ask
for tags, and say which ends are tried again; they are paused for a while, resumed with what they have missed, and told
to skip; nodes are drained.  All of it is drawn by dice of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from raftcron.core.commands import Done
from raftcron.core.instant import rfc3339
from raftcron.core.model import Key
from raftcron.errors import ConflictError, InvalidError
from raftcron.runtime.calendars import Calendars
from raftcron.runtime.drains import Drains
from raftcron.runtime.service import Service
from raftcron.runtime.writes import Precondition
from raftcron.testing.chance import Chance

if TYPE_CHECKING:
    from raftcron.testing.sim_node import Life

FROM_LAST_END = ("@every 1s from last_end", "@every 2s from last_end")
JITTERS = ("400ms", "900ms", "1800ms")
DEADLINES = ("1s", "2s", "4s")  # of starts
TIMEOUTS = ("1s", "2s")
RETRIED = (["timed_out"], ["broken"], ["failed", "timed_out", "broken"])
TAGS = {"disk": ("fast", "slow")}
CALENDARS: Mapping[str, Sequence[str]] = {  # what each excludes, one of these at a time
    "off-a": ("0-4,20-24,40-44 * * * * *", "3-9,30-35 * * * * *"),
    "off-b": ("10-13,30-33,50-53 * * * * *", "*/7 * * * * *"),
}
BOTH, BOTH_AFTER = "after-both", ("every-a", "every-b")  # a job that follows two
ENDS = ("success", "any", "any")  # of either that it waits for
PAUSES = (1.0, 2.5, 6.0)  # seconds
ASKED_SHARE = 0.25  # of the turns that clients have
ANY = Precondition()
# What is wrong with a write by the time that it is looked at, though it was sound when it was thought of.
MOVED_ON = ("/end_at", "/exclude", "/schedule", "/until", "/count", "/after/0/job", "/after/1/job")

Operation = Callable[[Service, Key], Awaitable[Done]]
Write = Callable[["Life", str, Operation], None]


class Wish(NamedTuple):
    """What a job's body will say as soon as it is known what time it is, and what there is."""

    start_after_ms: int | None = None
    end_after_ms: int | None = None
    exclude: tuple[str, ...] = ()


class Rarer:
    """Those who write such jobs and ask for such things."""

    def __init__(self, lives: Mapping[str, Life], dice: Chance, write: Write) -> None:
        self.is_over = False  # no node is drained any more
        self._lives = lives
        self._dice = dice
        self._write = write

    def tags_of(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """What each machine's node carries."""
        return {name: {key: self._dice.choice(values) for key, values in TAGS.items()} for name in names}

    # ---- what jobs say

    def add_to(self, body: dict[str, Any]) -> Wish:
        """Let a firing job say some of it; the rest is said by `put`."""
        dice = self._dice
        if dice.random() < 0.12:
            body["schedule"] = dice.choice(FROM_LAST_END)
        if dice.random() < 0.3:
            body["start_deadline"] = dice.choice(DEADLINES)
        if dice.random() < 0.2:
            body["jitter"] = dice.choice(JITTERS[: 2 if body.get("start_deadline") == "1s" else 3])
        if dice.random() < 0.15:
            body["max_runs"] = dice.randint(2, 6)
        if dice.random() < 0.3:
            body["isolation"] = dice.choice(["stop", "continue"])
        if dice.random() < 0.35 and "timeout" not in body:
            body["timeout"] = dice.choice(TIMEOUTS)
        if dice.random() < 0.4:
            body["retry"] = {"max_attempts": 3, **body.get("retry", {}), "on": dice.choice(RETRIED)}
        placement = body.get("placement", {})
        if dice.random() < 0.35 and placement.get("on") != "leader" and placement:
            body["placement"] = {**placement, "tags": {key: dice.choice(values) for key, values in TAGS.items()}}
        start_ms = dice.randint(500, 3_000) if dice.random() < 0.1 else None
        end_ms = dice.randint(4_000, 12_000) if dice.random() < 0.12 else None
        exclude = dice.sample(sorted(CALENDARS), dice.randint(1, 2)) if dice.random() < 0.2 else []
        return Wish(start_ms, end_ms, tuple(sorted(exclude)))

    def put(self, name: str, body: dict[str, Any], wish: Wish) -> Operation:
        """Write a job."""

        async def put(service: Service, key: Key) -> Done:
            now, calendars = service._time.now_ms(), service._machine.state.calendars
            whole = dict(body)
            if wish.start_after_ms is not None:
                whole["start_at"] = rfc3339(now + wish.start_after_ms)
            if wish.end_after_ms is not None:
                whole["end_at"] = rfc3339(now + wish.end_after_ms)
            if exclude := [calendar for calendar in wish.exclude if calendar in calendars]:
                whole["exclude"] = exclude
            return await _unless_moved_on(service.put_job(name, whole, ANY, key))

        return put

    def put_missing(self, life: Life) -> None:
        """What there is beside the firing jobs."""
        state = life.machine.state
        for name in CALENDARS:
            if name not in state.calendars:
                self._write(life, "", self._calendar(name))
        if BOTH not in state.jobs and all(parent in state.jobs for parent in BOTH_AFTER):
            after = [{"job": parent, "on": self._dice.choice(ENDS)} for parent in BOTH_AFTER]
            body = {"schedule": "@manual", "executor": {"type": "noop"}, "after": after, "join": "all"}
            self._write(life, "", lambda service, key: _unless_moved_on(service.put_job(BOTH, body, ANY, key)))

    # ---- what is asked for

    def is_asked(self) -> bool:
        """Whether somebody asks now."""
        return self._dice.random() < ASKED_SHARE

    def ask(self, life: Life, firing: Sequence[str]) -> None:
        """Somebody asks for something on a node that believes to lead."""
        dice, state = self._dice, life.machine.state
        names = [name for name in firing if name in state.jobs]
        paused = [name for name in names if state.jobs[name].paused]
        what = dice.random()
        if what < 0.15:
            self._drain(life)
        elif what < 0.3:
            self._write(life, "", self._calendar(dice.choice(sorted(CALENDARS))))
        elif paused and what < 0.6:
            name = dice.choice(paused)
            self._write(life, "", lambda service, key: service.resume_job(name, {"catch_up": True}, ANY, key))
        elif names and what < 0.75:
            self._write(life, "", self._pause(dice.choice(names), dice.choice(PAUSES)))
        elif names and what < 0.85:
            name = dice.choice(names)
            self._write(life, "", lambda service, key: service.pause_job(name, None, ANY, key))
        elif names:
            self._write(life, "", self._skip(dice.choice(names), dice.randint(1, 3)))

    def _pause(self, name: str, seconds: float) -> Operation:
        def pause(service: Service, key: Key) -> Awaitable[Done]:
            until = service._time.now_ms() + int(seconds * 1000)
            return _unless_moved_on(service.pause_job(name, {"until": rfc3339(until)}, ANY, key))

        return pause

    def _skip(self, name: str, count: int) -> Operation:
        return lambda service, key: _unless_moved_on(service.skip_next(name, {"count": count}, ANY, key))

    def _calendar(self, name: str) -> Operation:
        body = {"schedules": [self._dice.choice(CALENDARS[name])]}

        def put(service: Service, key: Key) -> Awaitable[Done]:
            calendars = Calendars(machine=service._machine, time=service._time, writes=service)
            return calendars.put(name, body, ANY, key)

        return put

    def _drain(self, life: Life) -> None:
        """One node at a time, until somebody takes that back or its process ends."""
        members = sorted({member.name for member in life.log.status().members} & life.machine.state.nodes.keys())
        drained = [name for name in members if life.machine.state.nodes[name].drained]
        if self.is_over and not drained:
            return
        body = {"node": drained[0], "drain": False} if drained else {"node": self._dice.choice(members)}

        def drain(service: Service, key: Key) -> Awaitable[Done]:
            log = self._lives[service._node].log
            return Drains(node=service._node, machine=service._machine, log=log, writes=service).drain(body, key)

        self._write(life, "", drain)


async def _unless_moved_on(write: Awaitable[Done]) -> Done:
    """A write is looked at later than it is thought of: an instant may have passed, a job may be another one."""
    try:
        return await write
    except InvalidError as error:
        if all(fault.pointer in MOVED_ON for fault in error.faults):
            raise ConflictError(f"by now that is not valid: {error}") from error
        raise
