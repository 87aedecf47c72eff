"""What workers tell the leader about runs: requests to start, refusals, endings; gathered, sent, repeated until true.

A report is done when this node's own applied state shows it, not when somebody has answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from raftcron.core.commands import Finish, Finished, NotStarted, Start, TakenOver, TakeOver, Token
from raftcron.core.model import ASSIGNED, LOST, ON_A_NODE, STARTED, Run
from raftcron.core.unreadable import UNREADABLE
from raftcron.errors import MalformedError, RaftcronError
from raftcron.ports import Log
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer

log = logging.getLogger(__name__)

Report = Start | NotStarted | Finish | TakeOver
News = Finished | Token | TakenOver
KIND = "report"
REPORTS_PER_ENTRY = 500
BYTES_PER_ENTRY = 256 << 10  # an ending may carry a 4 KiB output tail and as much of an error: below half a MiB
FOREIGN_PROPOSALS = 64  # reports of other nodes that a leader proposes at once; what comes beyond is repeated later

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Report).decode


class Reports:
    """One node's outbox, and the leader's inbox."""

    def __init__(self, *, node: str, machine: Machine, log: Log, proposer: Proposer) -> None:
        self._node = node
        self._machine = machine
        self._log = log
        self._proposer = proposer
        self._open: dict[int, News] = {}  # by fencing token: what the state does not show yet
        self._starts: dict[int, Token] = {}
        self._fresh: list[int] = []  # tokens not sent yet
        self._busy = False
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._foreign = 0
        log.on_message(KIND, self._received)

    @property
    def open_count(self) -> int:
        """Endings and refusals that the state does not show yet."""
        return len(self._open)

    def is_open(self, token: int) -> bool:
        """Whether an ending or a refusal of this token is still to be told."""
        return token in self._open

    # ---- the worker's side

    def ask_start(self, run: Run) -> None:
        """Ask for what was assigned to this node to be started."""
        if run.fencing_token not in self._starts:
            self._starts[run.fencing_token] = Token(run.id, run.fencing_token)
            self._later(run.fencing_token)

    def ended(self, finished: Finished) -> None:
        """An attempt has ended."""
        self._open[finished.fencing_token] = finished
        self._later(finished.fencing_token)

    def taken_over(self, word: TakenOver) -> None:
        """The target of an attempt goes on with it by itself."""
        self._open[word.fencing_token] = word
        self._later(word.fencing_token)

    def refused(self, token: Token) -> None:
        """The start gate has refused this token, for ever."""
        self._open[token.fencing_token] = token
        self._later(token.fencing_token)

    def repeat(self) -> None:
        """Drop what the state shows by now and send the rest again; called each second and when the leader changes."""
        runs = self._machine.state.runs
        for token, report in list(self._open.items()):
            if not _is_news(runs.get(report.run), token, report):
                del self._open[token]
        for token, start in list(self._starts.items()):
            run = runs.get(start.run)
            if run is None or run.fencing_token != token or run.state != ASSIGNED:
                del self._starts[token]
        self._fresh = [*self._starts, *self._open]
        if self._fresh:
            self._schedule()

    def _later(self, token: int) -> None:
        self._fresh.append(token)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._busy:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is fresh; while an own proposal is under way, more gathers."""
        self._scheduled = False
        fresh, self._fresh = self._fresh, []
        reports = self._gather(fresh)
        if not reports:
            return
        if self._log.leading_epoch is not None:
            self._busy = True
            task = asyncio.get_running_loop().create_task(self._propose_own(reports))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        leader = self._log.status().leader
        if leader is not None and leader != self._node:
            for report in reports:
                self._log.send(leader, KIND, _encode(report))

    def _gather(self, tokens: list[int]) -> list[Report]:
        endings: list[Finished] = []
        words: list[TakenOver] = []
        refusals: list[Token] = []
        starts: list[Token] = []
        for token in tokens:
            report = self._open.get(token)
            if isinstance(report, Finished):
                endings.append(report)
            elif isinstance(report, TakenOver):
                words.append(report)
            elif report is not None:
                refusals.append(report)
            elif token in self._starts:
                starts.append(self._starts[token])
        size = REPORTS_PER_ENTRY
        return [
            *(Finish(part) for part in _by_size(endings)),
            *(TakeOver(part) for part in _by_size(words)),
            *(NotStarted(refusals[at : at + size]) for at in range(0, len(refusals), size)),
            *(Start(starts[at : at + size]) for at in range(0, len(starts), size)),
        ]

    async def _propose_own(self, reports: list[Report]) -> None:
        try:
            outcomes = await asyncio.gather(
                *(self._proposer.propose(report) for report in reports), return_exceptions=True
            )
            failed = False
            for report, outcome in zip(reports, outcomes, strict=True):
                if isinstance(outcome, RaftcronError):
                    failed = True
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    self._shown(report)
            if failed:
                log.warning("reports_failed count=%d next=repeated_within_a_second", len(reports))
        finally:
            self._busy = False
            if self._fresh:
                self._schedule()

    def _shown(self, report: Report) -> None:
        """The report has applied here, so the state shows what was to be told."""
        if isinstance(report, Finish):
            for finished in report.finished:
                self._open.pop(finished.fencing_token, None)
        elif isinstance(report, TakeOver):
            for word in report.taken:
                self._open.pop(word.fencing_token, None)
        elif isinstance(report, NotStarted):
            for token in report.tokens:
                self._open.pop(token.fencing_token, None)
        else:
            for token in report.starts:
                self._starts.pop(token.fencing_token, None)

    # ---- the leader's side

    def _received(self, peer: str, message: Any) -> None:
        """A report of another node: propose it; the worker repeats what does not come true."""
        if self._log.leading_epoch is None or self._foreign >= FOREIGN_PROPOSALS:
            return
        try:
            report = _decode(message)
        except (*UNREADABLE, TypeError) as error:
            raise MalformedError(f"a report cannot be read: {error}") from error
        task = asyncio.get_running_loop().create_task(self._propose_foreign(report))
        self._foreign += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _propose_foreign(self, report: Report) -> None:
        try:
            await self._proposer.propose(report)
        except RaftcronError as error:
            log.info("report_not_taken code=%s next=the_worker_repeats_it", error.code)
        finally:
            self._foreign -= 1


Tailed = TypeVar("Tailed", Finished, TakenOver)


def _by_size(endings: list[Tailed]) -> Iterator[list[Tailed]]:
    """Endings as entries take them, by count and by the bytes that they take there."""
    part: list[Tailed] = []
    size = 0
    for finished in endings:
        part.append(finished)
        size += len(_encode(finished))
        if len(part) >= REPORTS_PER_ENTRY or size >= BYTES_PER_ENTRY:
            yield part
            part, size = [], 0
    if part:
        yield part


def _is_news(run: Run | None, token: int, report: News) -> bool:
    """Whether the state does not show yet what the report says; the late end of a lost run is news once."""
    if run is None or run.fencing_token != token:
        return False
    if isinstance(report, Token):
        return run.state in ON_A_NODE
    if isinstance(report, TakenOver):
        return run.state in STARTED and run.answer_by is None
    return run.state in STARTED or (run.state == LOST and report.state != LOST and run.late_outcome is None)
