"""The leader tells whoever wants to know what became of runs: at least once each, under an id that never changes.

It reads its own node's events from behind the mark that the log holds, and moves the mark when all before it are
delivered.  A new leader goes on from there: it may repeat some, and misses none.  Where no alert was ever configured
there is no mark, and nothing is read or proposed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from raftcron.clock import Clock
from raftcron.core.alerts import MARK, Target, targets
from raftcron.core.commands import MarkAlerts
from raftcron.core.events import RunEvent
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
    event: RunEvent
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
        self._unread: deque[tuple[Place, RunEvent]] = deque()
        self._open: dict[int, int] = {}  # index -> alerts of it that are on their way
        self._queues: dict[Target, deque[Alert]] = {}
        self._tasks: dict[Target, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(SENDING_MAX)
        self._pending = 0
        self._marked_at = 0.0
        self._first_told: int | None = None  # the lowest index that has told somebody, since the mark was moved
        self._last_told = 0

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
        if epoch is None or mark is None:
            return
        try:
            self._read(mark.through)
        except GoneError as error:
            self.figures.missed += 1
            log.warning("alerts_missed after=%d oldest=%s detail=%s", mark.through, self._events.oldest, error.detail)
            self._reader = self._events.whole()
        while self._unread and self.pending < PENDING_MAX:
            self._take(*self._unread.popleft())
        await self._move(mark.through)

    def _read(self, through: int) -> None:
        if self._reader is None:
            self._looked = through
            self._reader = self._events.reader(Place(through, LAST_PLACE))
        if len(self._unread) >= PENDING_MAX:
            return
        looked = self._events.through
        for place, event in self._reader.read():
            if isinstance(event, RunEvent) and event.alert is not None:
                self._unread.append((place, event))
        self._looked = max(self._looked, looked)

    def _take(self, place: Place, event: RunEvent) -> None:
        for target in targets(self._machine.state, event.uid):
            if event.alert not in target.on:
                continue
            queue = self._queues.setdefault(target, deque())
            if len(queue) >= QUEUE_MAX:
                self._over(queue[1], "too many wait for this target")  # the first may be on its way
                del queue[1]
            queue.append(Alert(place, event, target, self._clock.boot()))
            self._open[place.log_index] = self._open.get(place.log_index, 0) + 1
            self._pending += 1
            if target not in self._tasks:
                self._tasks[target] = asyncio.get_running_loop().create_task(self._deliver(target, queue))

    async def _move(self, marked: int) -> None:
        """Up to where all is delivered, if that is worth an entry: not for entries that said nothing to anybody."""
        behind = [*self._open, *(place.log_index for place, _ in islice(self._unread, 1))]
        through = min(behind) - 1 if behind else self._looked
        has_told = self._first_told is not None and self._first_told <= through
        is_worth_it = has_told or through - marked >= LOOKED_PAST
        now = self._clock.boot()
        if through <= marked or not is_worth_it or now - self._marked_at < MARK_SECONDS:
            return
        self._marked_at = now
        try:
            await self._proposer.propose(MarkAlerts(through))
        except RaftcronError as error:
            log.info("alerts_not_marked code=%s through=%d", error.code, through)
        else:
            self._first_told = through + 1 if self._last_told > through else None

    def _stand_down(self) -> None:
        """Another node goes on, from the mark."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks, self._queues, self._open = {}, {}, {}
        self._unread.clear()
        self._pending, self._first_told, self._last_told = 0, None, 0
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
        index = alert.place.log_index
        self._first_told = index if self._first_told is None else min(index, self._first_told)
        self._last_told = max(index, self._last_told)
        self._pending -= 1
        self._open[index] -= 1
        if not self._open[index]:
            del self._open[index]
        if problem is None:
            self.figures.delivered += 1
            return
        self.figures.failed += 1
        log.warning(
            "alert_given_up id=%s kind=%s job=%s type=%s problem=%s",
            alert.place,
            alert.event.alert,
            alert.event.job,
            alert.target.type,
            problem,
        )


def body_of(place: Place, event: RunEvent, cluster_id: str | None) -> dict[str, Any]:
    """What a webhook gets."""
    return {
        "id": str(place),
        "kind": event.alert,
        "job": event.job,
        "run": event.id,
        "scheduled_time": instant(event.scheduled_time),
        "state": event.state,
        "reason": event.reason,
        "error": event.error,
        "error_kind": event.error_kind,
        "count": event.count,
        "attempt": event.attempt,
        "node": event.node,
        "at": instant(event.at),
        "cluster_id": cluster_id,
    }


_SAYS: Final = {
    "failed": "failed",
    "lost": "was lost: its node is gone, and nobody knows how it ended",
    "late": "has started late",
    "missed": "was missed",
    "recovered": "works again",
}


def text_of(event: RunEvent) -> str:
    """What a person reads; its first line is the subject of a mail."""
    many = f" ({event.count} times)" if event.count is not None and event.count > 1 else ""
    head = f"{event.job} {_SAYS[event.alert or 'failed']}{many}"
    why = " ".join(word for word in (event.reason, event.error) if word)
    return f"{head}\nscheduled {instant(event.scheduled_time)}, run {event.id}" + (f": {why}" if why else "")
