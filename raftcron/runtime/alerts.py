"""The leader tells whoever wants to know what became of runs: at least once each, under an id that never changes.

It reads its own node's events from behind the mark that the log holds, and moves the mark when all before it are
delivered.  A target that does not take what is for it keeps a mark of its own, and holds back no other.  A new leader
goes on from there: it may repeat the last ones, and misses none.  Where nobody is to be told there is no mark, and
nothing is read or proposed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from raftcron.clock import Clock
from raftcron.core.alerts import BEHIND_MAX, MARK, Target, targets
from raftcron.core.commands import MarkAlerts
from raftcron.core.events import JobEvent, RunEvent
from raftcron.core.model import AlertMark
from raftcron.errors import GoneError, RaftcronError
from raftcron.ports import Log
from raftcron.runtime.events import LAST_PLACE, EventLog, Place, Reader
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.views import instant

log = logging.getLogger(__name__)

PENDING_MAX: Final = 10_000  # alerts on their way, in all; what is behind them waits in the event log
QUEUE_MAX: Final = 1_000  # of them to one target; the oldest are given up for newer ones
SENDING_MAX: Final = 16  # at once
PATIENCE_SECONDS: Final = 3600.0  # for one alert
BACKOFF_SECONDS: Final = (0.5, 60.0)  # between two tries: the first, doubled up to the last
PACE_SECONDS: Final = 0.1  # between two looks at the events
MARK_SECONDS: Final = 1.0  # between two moves of the mark
STUCK_SECONDS: Final = 5.0  # a target that has not taken an alert for so long gets a mark of its own
LOOKED_PAST: Final = 5_000  # entries without an alert that move the mark all the same: events do not stay for ever


class Sender(Protocol):
    """What carries alerts: executors/courier.py."""

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], secret: str | None, id_: str
    ) -> str | None: ...

    async def mail(self, to: str, subject: str, text: str, id_: str) -> str | None: ...


class Alert(NamedTuple):
    """Something that happened, on its way to one target."""

    place: Place
    event: RunEvent | JobEvent
    target: Target
    since: float  # boot clock


@dataclass
class Figures:
    """Of this process, for the metrics."""

    delivered: int = 0
    failed: int = 0  # given up
    missed: int = 0  # gaps in the events


class Alerts:
    """The loop of one node; it works while the node leads."""

    def __init__(
        self,
        *,
        machine: Machine,
        log: Log,
        proposer: Proposer,
        events: EventLog,
        clock: Clock,
        sender: Sender,
        fill: Callable[[str], Awaitable[str]],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`fill` puts secrets in the place of their references; it raises RaftcronError where there is none."""
        self._machine = machine
        self._log = log
        self._proposer = proposer
        self._events = events
        self._clock = clock
        self._sender = sender
        self._fill = fill
        self._patience = patience_seconds
        self.figures = Figures()
        self._epoch: int | None = None  # that it works in
        self._reader: Reader | None = None
        self._looked = 0  # the last index whose events were read
        self._unread: deque[tuple[Place, RunEvent | JobEvent]] = deque()
        self._begun_at = AlertMark(MARK, 0)  # as the mark stood when the reading began
        self._queues: dict[Target, deque[Alert]] = {}
        self._tasks: dict[Target, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(SENDING_MAX)
        self._pending = 0
        self._marked_at = 0.0
        self._told = 0  # the highest index of what is over

    @property
    def pending(self) -> int:
        """Alerts that are on their way to a target."""
        return self._pending

    async def run(self) -> None:
        """Returns only by being cancelled."""
        try:
            while True:
                news = self._events.news()
                await self._step()
                await asyncio.sleep(PACE_SECONDS)
                with contextlib.suppress(TimeoutError):  # a mark may be due, or there be room again, without news
                    async with asyncio.timeout(MARK_SECONDS):
                        await news.wait()
        finally:
            self._stand_down()

    # ---- what happened

    async def _step(self) -> None:
        epoch = self._log.leading_epoch
        if epoch != self._epoch:
            self._stand_down()
            self._epoch = epoch
        mark = self._machine.state.alert_marks.get(MARK)
        if epoch is None:
            return
        if mark is None:  # nobody is to be told any more; what is on its way still goes
            self._reader = None
            self._unread.clear()
            return
        try:
            self._read(mark)
        except GoneError as error:
            self.figures.missed += 1
            log.warning("alerts_missed after=%d oldest=%s detail=%s", self._looked, self._events.oldest, error.detail)
            self._reader = self._events.whole()
        while self._unread and self.pending < PENDING_MAX:
            self._take(*self._unread.popleft())
        await self._move(mark)

    def _read(self, mark: AlertMark) -> None:
        if self._reader is None:
            self._begun_at = AlertMark(MARK, mark.through, behind=dict(mark.behind))
            self._looked = min([mark.through, *mark.behind.values()])
            self._reader = self._events.reader(Place(self._looked, LAST_PLACE))
        if len(self._unread) >= PENDING_MAX:
            return
        looked = self._events.through
        for place, event in self._reader.read():
            if isinstance(event, RunEvent | JobEvent) and event.alert is not None:
                self._unread.append((place, event))
        self._looked = max(self._looked, looked)

    def _take(self, place: Place, event: RunEvent | JobEvent) -> None:
        begun_at = self._begun_at
        for target in targets(self._machine.state, event.uid):
            if event.alert not in target.on:
                continue
            if place.log_index <= begun_at.through and place.log_index <= begun_at.behind.get(
                target.key, begun_at.through
            ):
                continue  # it has it already: the reading has begun where another one is
            queue = self._queues.setdefault(target, deque())
            if len(queue) >= QUEUE_MAX:
                self._over(queue[1], "too many wait for this target")  # the first may be on its way
                del queue[1]
            queue.append(Alert(place, event, target, self._clock.boot()))
            self._pending += 1
            if target not in self._tasks:
                self._tasks[target] = asyncio.get_running_loop().create_task(self._deliver(target, queue))

    async def _move(self, mark: AlertMark) -> None:
        """The mark up to where all is delivered, if that is worth an entry: not for what said nothing to anybody."""
        now = self._clock.boot()
        if now - self._marked_at < MARK_SECONDS:
            return
        through, behind = self._reached(mark, now)
        is_worth_it = self._told > mark.through or through - mark.through >= LOOKED_PAST or behind != mark.behind
        if (through, behind) == (mark.through, mark.behind) or not is_worth_it:
            return
        self._marked_at = now
        try:
            await self._proposer.propose(MarkAlerts(through, behind))
        except RaftcronError as error:
            log.info("alerts_not_marked code=%s through=%d", error.code, through)

    def _reached(self, mark: AlertMark, now: float) -> tuple[int, dict[str, int]]:
        """Up to where targets have all that is theirs; and up to where those have that are stuck before that."""
        read = self._unread[0][0].log_index - 1 if self._unread else self._looked
        reached: dict[str, int] = (
            {} if read >= mark.through else {key: max(read, at) for key, at in mark.behind.items()}
        )
        waits: dict[str, float] = {}  # since when the first alert does
        for target, queue in self._queues.items():
            first = queue[0]
            before = min(first.place.log_index - 1, read)
            reached[target.key] = min(before, reached.get(target.key, before))
            waits[target.key] = min(first.since, waits.get(target.key, now))
        goal = max(read, mark.through)
        short = sorted((at, key) for key, at in reached.items() if at < goal)
        stuck = [(at, key) for at, key in short if key in mark.behind or now - waits[key] >= STUCK_SECONDS][:BEHIND_MAX]
        left_out = dict.fromkeys(key for _, key in stuck)
        through = max(min([goal, *(at for at, key in short if key not in left_out)]), mark.through)
        return through, {key: at for at, key in stuck if at < through}

    def _stand_down(self) -> None:
        """Another node goes on, from the mark."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks, self._queues = {}, {}
        self._unread.clear()
        self._pending, self._told = 0, 0
        self._reader = None

    # ---- to one target

    async def _deliver(self, target: Target, queue: deque[Alert]) -> None:
        """All that is for it, in order; a slow one holds up nobody else."""
        while queue:
            alert = queue[0]
            problem = await self._send_until_over(alert)
            queue.popleft()
            self._over(alert, problem)
        del self._queues[target], self._tasks[target]

    async def _send_until_over(self, alert: Alert) -> str | None:
        pause, longest = BACKOFF_SECONDS
        while True:
            async with self._room:
                try:
                    problem = await self._send(alert)
                except Exception as error:  # a fault of ours with one alert must not keep others back
                    log.exception("alert_not_sent id=%s", alert.place)
                    problem = type(error).__name__
            if problem is None:
                return None
            if self._clock.boot() + pause - alert.since > self._patience:
                return problem
            log.info("alert_not_taken id=%s type=%s problem=%s next=again", alert.place, alert.target.type, problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _send(self, alert: Alert) -> str | None:
        target, id_ = alert.target, str(alert.place)
        if target.type == "email":
            said = text_of(alert.event)
            facts = json.dumps(self._body(alert), indent=2, ensure_ascii=False)
            return await self._sender.mail(target.to, said.partition("\n")[0], f"{said}\n\n{facts}\n", id_)
        try:
            url = await self._fill(target.url)
            secret = None if target.secret is None else await self._fill(target.secret)
        except RaftcronError as error:
            return error.detail
        if target.type == "slack":
            body: dict[str, Any] = {"text": text_of(alert.event)}
        else:
            body = self._body(alert)
        headers = {"Raftcron-Event-Id": id_, "Idempotency-Key": id_}
        return await self._sender.post(url, json.dumps(body).encode(), headers, secret, id_)

    def _body(self, alert: Alert) -> dict[str, Any]:
        return body_of(alert.place, alert.event, self._log.status().cluster_id)

    def _over(self, alert: Alert, problem: str | None) -> None:
        self._told = max(alert.place.log_index, self._told)
        self._pending -= 1
        if problem is None:
            self.figures.delivered += 1
            return
        self.figures.failed += 1
        log.warning(
            "alert_given_up id=%s kind=%s job=%s type=%s problem=%s",
            alert.place,
            alert.event.alert,
            alert.event.name if isinstance(alert.event, JobEvent) else alert.event.job,
            alert.target.type,
            problem,
        )


def body_of(place: Place, event: RunEvent | JobEvent, cluster_id: str | None) -> dict[str, Any]:
    """What a webhook gets."""
    if isinstance(event, JobEvent):
        said: dict[str, Any] = dict.fromkeys(_OF_RUNS) | {"job": event.name, "state": event.alert, "error": event.note}
    else:
        said = {"job": event.job, "run": event.id} | {name: getattr(event, name) for name in _OF_RUNS[2:]}
        said["scheduled_time"] = instant(event.scheduled_time)
    return {"id": str(place), "kind": event.alert, **said, "at": instant(event.at), "cluster_id": cluster_id}


_OF_RUNS: Final = (
    "job", "run", "scheduled_time", "state", "reason", "error", "error_kind", "count", "attempt", "node",
)  # fmt: skip
_SAYS: Final = {
    "failed": "failed",
    "lost": "was lost: its node is gone, and nobody knows how it ended",
    "late": "has started late",
    "missed": "was missed",
    "recovered": "works again",
    "paused": "was paused by the cluster, which cannot tell its times",
}


def text_of(event: RunEvent | JobEvent) -> str:
    """What a person reads; its first line is the subject of a mail."""
    says = _SAYS[event.alert or "failed"]
    if isinstance(event, JobEvent):
        return f"{event.name} {says}\n{event.note}"
    many = f" ({event.count} times)" if event.count is not None and event.count > 1 else ""
    why = " ".join(word for word in (event.reason, event.error) if word)
    return f"{event.job} {says}{many}\nscheduled {instant(event.scheduled_time)}, run {event.id}" + (
        f": {why}" if why else ""
    )
