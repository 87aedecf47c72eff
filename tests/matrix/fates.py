"""What has to become of the runs of a course after a fault, told from the rules alone (semantics 3 to 7, 10 and 11).

Knows nothing of the code that is tested: of the clean course it takes what the log said of each run when the fault
struck, and since when.  From there on it follows the rules with spans of time for what takes an uncertain moment;
where two things may come in either order, both of what follows is allowed.
"""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

from tests.matrix.cells import AFTER, AS, Cell, Entry, Seen, strike_at, victims_of
from tests.matrix.courses import FIRST_SECONDS, SECOND_SECONDS
from tests.matrix.nodes import (
    ELECTION_SECONDS,
    FAULT_SECONDS,
    KILL,
    PAUSE,
    RESTART,
    RESTART_SECONDS,
    STOP_SECONDS,
    TIMES,
    Plan,
)

LEASE_SECONDS, MARGIN_SECONDS = TIMES
BEAT_SECONDS = 1.0  # between heartbeats, between two looks at who is silent, between two reports of one thing
SILENT_SECONDS = 3.0  # a node that was not heard for so long gets nothing new; what it has not started is taken back
MOMENT_SECONDS = 0.3  # for a few messages and proposals
BACKOFF_SHARE = 0.75  # the least of the back-off that is waited
ENDED = ("succeeded", "failed", "timed_out", "cancelled", "lost", "skipped")
WORST_FIRST = ("failed", "timed_out", "lost", "cancelled")


class Span(NamedTuple):
    """Between two instants."""

    lo: float
    hi: float

    def later(self, lo: float, hi: float | None = None) -> Span:
        return Span(self.lo + lo, self.hi + (lo if hi is None else hi))

    def not_before(self, other: Span) -> Span:
        return Span(max(self.lo, other.lo), max(self.hi, other.hi))


class Fate(NamedTuple):
    seen: Seen
    ended: Span


class Fact(NamedTuple):
    """What the log says of a run when the fault strikes."""

    state: str
    attempt: int
    node: str | None
    number: int  # of the entry that made it so
    started: int | None  # of the entry that started its present attempt


Event = tuple[Span, str]
GONE, TOLD, WORD = "gone", "told", "word"  # it is declared lost; somebody ends it; its node says how it ended


class Fates:
    """Of the runs of one cell."""

    def __init__(self, cell: Cell, clean: list[Entry]) -> None:
        self.cell, self.course, self.clean = cell, cell.course, clean
        self.victims = victims_of(cell, clean)
        self.has_quorum = len(self.victims) == 1
        self.has_leader = "n1" not in self.victims
        self.at = strike_at(cell, clean)
        self.is_final = cell.fault in (KILL, RESTART)  # what was at work is gone
        self.facts = self._facts()
        retry = self.course.fields.get("retry", {})
        again = cell.delivery == "at_least_once"
        self.max_attempts = retry.get("max_attempts", 5 if again else 1)
        self.retried = {*retry.get("on", ["failed"]), *(["lost"] if again else [])}
        self.overlap = self.course.fields.get("overlap", {}).get("policy", "skip")
        self.reason = "cancelled" if self.course.deed == "cancel" else "overlap"
        second = FIRST_SECONDS + SECOND_SECONDS
        self.second = self._committed(Span(second, second))  # of the second time, or of what the user does
        self.is_ended_early = self.course.deed == "cancel" or self.overlap == "replace"

    def _facts(self) -> dict[str, Fact]:
        facts: dict[str, Fact] = {}
        for number, entry in enumerate(self.clean[: self.cell.number + 1]):
            for step in entry.steps:
                former = facts.get(step.label)
                started = former.started if former is not None and step.state in ("cancelling", "with_target") else None
                if step.state == "running":
                    started = number
                facts[step.label] = Fact(step.state, step.attempt, step.node, number, started)
        return facts

    # ---- when

    @property
    def back(self) -> Span:
        """When entries are committed again."""
        if self.has_leader:
            return Span(self.at, self.at)
        seconds = ELECTION_SECONDS
        if not self.has_quorum:
            seconds += RESTART_SECONDS if self.cell.fault == RESTART else FAULT_SECONDS
        return Span(self.at + seconds, self.at + seconds + MOMENT_SECONDS)

    def _committed(self, span: Span) -> Span:
        """When what wants to be written at that time is; whoever was not heard repeats it within a second."""
        if span.hi <= self.at or span.lo >= self.back.hi:
            return span.later(0, MOMENT_SECONDS)
        return span.not_before(self.back).later(0, BEAT_SECONDS + MOMENT_SECONDS)

    @property
    def gone(self) -> Span | None:
        """When what a struck node had started is declared lost; None: never, the node says itself what became of it."""
        if self.cell.fault == RESTART:
            return self._committed(Span(self.at + RESTART_SECONDS, self.at + RESTART_SECONDS + BEAT_SECONDS))
        if not self.has_quorum:
            return self.back.later(0, BEAT_SECONDS) if self.cell.fault == KILL else None
        if self.has_leader:  # counted from the last heartbeat that it has heard
            return Span(self.at + LEASE_SECONDS - BEAT_SECONDS, self.at + LEASE_SECONDS + BEAT_SECONDS + MOMENT_SECONDS)
        return self.back.later(LEASE_SECONDS, LEASE_SECONDS + BEAT_SECONDS)  # from its own leadership entry

    def _started(self, ready: Span) -> Span:
        """When an attempt that is ready for a node starts."""
        span = self._committed(ready)
        if self.has_leader and span.lo < self.at + SILENT_SECONDS + BEAT_SECONDS and span.hi >= self.at:
            silent = SILENT_SECONDS + BEAT_SECONDS  # it may be given to a node that does not hear
            if self.cell.fault == RESTART:
                silent = RESTART_SECONDS + BEAT_SECONDS
            span = Span(span.lo, max(span.hi, self.at + silent) + MOMENT_SECONDS)
        return span

    # ---- what becomes of one run

    def of(self, label: str) -> list[Fate]:
        """What may become of a run that the log knows when the fault strikes."""
        fact = self.facts[label]
        is_hit = fact.node in self.victims
        if fact.state in ENDED:
            return [Fate(self._as_declared(label), Span(self.at, self.at))]
        if fact.state == "with_target":
            return self._with_target(fact.attempt, Span(self.at, self.at))
        if fact.state in ("running", "cancelling"):
            if is_hit or not self.has_quorum:
                return self._struck(label, fact, is_hit)
            begun = Span(self.clean[fact.started or 0].at, self.clean[fact.started or 0].at)
            if fact.state == "cancelling":
                ended = self._committed(Span(self.at, self.at + STOP_SECONDS))
                return [Fate(Seen("cancelled", self.reason, fact.attempt, None), ended)]
            return self._attempt(label, fact.attempt, begun)
        if self.course.is_broadcast and label.split(".")[1] in self.victims and not self._comes_back():
            assert self.gone is not None
            return [Fate(Seen("lost", None, 1, None), self.gone)]  # it does not move
        if fact.state == "assigned":
            return self._waiting(label, fact.attempt, Span(self.at, self.at), self._started(self.back))
        assert fact.state in ("queued", "waiting_retry"), f"no rule for a run that is {fact.state}"
        attempt = fact.attempt + (fact.state == "waiting_retry")
        starts = [
            entry.at
            for entry in self.clean[self.cell.number + 1 :]
            for step in entry.steps
            if (step.label, step.state, step.attempt) == (label, "running", attempt)
        ]
        if not starts:  # the back-off is longer than what comes
            return [Fate(Seen("cancelled", self.reason, fact.attempt, None), self.second)]
        return self._waiting(label, attempt, Span(self.at, self.at), self._started(Span(starts[0], starts[0])))

    def _comes_back(self) -> bool:
        """Whether a struck node is heard again before a lease has passed without it."""
        return self.cell.fault == RESTART or not self.has_quorum

    def _as_declared(self, label: str) -> Seen:
        steps = [step for entry in self.clean for step in entry.steps if step.label == label]
        is_told = steps[-1].state in ("cancelled", "skipped")
        return Seen(steps[-1].state, self.reason if is_told else None, steps[-1].attempt, None)

    def _waiting(self, label: str, attempt: int, ready: Span, start: Span) -> list[Fate]:
        """An attempt that waits for its start."""
        fates: list[Fate] = []
        told = self._told(label)
        if told is not None and told.lo < start.hi and told.hi > ready.lo:
            state = "skipped" if attempt == 1 else "cancelled"
            fates += [Fate(Seen(state, self.reason, shown, None), told) for shown in {attempt, max(1, attempt - 1)}]
            if told.hi < start.lo:
                return fates
        deadline = FIRST_SECONDS + self.course.deadline if attempt == 1 else math.inf
        if start.hi > deadline:
            fates.append(Fate(Seen("skipped", "deadline", attempt, None), start))
        if start.lo <= deadline:
            fates += self._attempt(label, attempt, start)
        return fates

    def _told(self, label: str) -> Span | None:
        """When somebody ends the run early, if that has not been yet."""
        return self.second if self.is_ended_early and label == "1" and self.second.hi > self.at else None

    def _attempt(self, label: str, attempt: int, begun: Span) -> list[Fate]:
        """One that no fault hits."""
        plan = self.course.plan(label, attempt)
        events: list[Event] = [(self._committed(begun.later(plan.seconds, plan.seconds + MOMENT_SECONDS)), WORD)]
        if (told := self._told(label)) is not None:
            events.append((told, TOLD))
        fates: list[Fate] = []
        for span, what in _first(events):
            if what == TOLD:
                ended = self._committed(span.later(0, STOP_SECONDS))
                fates.append(Fate(Seen("cancelled", self.reason, attempt, None), ended))
            else:
                fates += self._ended(label, attempt, plan.ending, span)
        return fates

    def _ended(self, label: str, attempt: int, ending: str, at: Span, late: str | None = None) -> list[Fate]:
        """What follows the end of an attempt."""
        if ending == "taken_over":
            return self._with_target(attempt, at)
        is_bound = ending == "lost" and self.course.is_broadcast  # to its node, which is gone
        if ending not in self.retried or attempt >= self.max_attempts or is_bound:
            return [Fate(Seen(ending, None, attempt, late), at)]
        if ending == "lost":
            return self._waiting(label, attempt + 1, at, self._started(at))
        if self.course.fields["retry"]["backoff"] == "1h":
            return [Fate(Seen("cancelled", self.reason, attempt, None), self.second)]
        return self._waiting(label, attempt + 1, at, self._started(at.later(BACKOFF_SHARE, 1.0)))

    def _with_target(self, attempt: int, at: Span) -> list[Fate]:
        """No node's fault bears on it: it ends with its target's word, which is repeated until it is heard."""
        return [Fate(Seen("succeeded", None, attempt, None), self.second.not_before(at))]

    def _struck(self, label: str, fact: Fact, is_hit: bool) -> list[Fate]:
        """Its attempt had started, on a node that is gone or has no lease any more."""
        plan, events = self.course.plan(label, fact.attempt), list[Event]()
        word = self._word(fact, plan, is_hit)
        is_gone = is_hit and self.gone is not None
        if is_gone:
            assert self.gone is not None
            events.append((self.gone, GONE))
        elif word is None:  # its start is on record, and it has not begun; nor did anybody give it up
            now = self.back
            if fact.state == "cancelling":
                return [Fate(Seen("cancelled", self.reason, fact.attempt, None), now)]
            return self._waiting(label, fact.attempt, now, now.later(0, BEAT_SECONDS))
        else:
            events.append((self._committed(word[0]), WORD))
        if fact.state == "cancelling":
            return [self._cancelled(fact, is_gone, word)]
        if (told := self._told(label)) is not None:
            events.append((told, TOLD))
        fates: list[Fate] = []
        for span, what in _first(events):
            if what == TOLD:
                fates.append(self._cancelled(fact, is_gone, word))
            elif what == GONE:
                late = None if word is None or word[1] in ("lost", "taken_over") else word[1]
                fates += self._ended(label, fact.attempt, "lost", span, late)
            else:
                assert word is not None
                fates += self._ended(label, fact.attempt, word[1], span)
        return fates

    def _cancelled(self, fact: Fact, is_gone: bool, word: tuple[Span, str] | None) -> Fate:
        """It was told to end; what nobody saw end is lost all the same, and nothing follows."""
        heard = fact.state == "cancelling" and self._has_heard(fact.number)
        if is_gone:
            assert self.gone is not None
            late = None if word is None or word[1] in ("lost", "taken_over") else word[1]
            if heard and not self.is_final:
                late = "cancelled"
            return Fate(Seen("lost", self.reason, fact.attempt, late), self.gone)
        return Fate(Seen("cancelled", self.reason, fact.attempt, None), self.back.later(0, BEAT_SECONDS + STOP_SECONDS))

    def _word(self, fact: Fact, plan: Plan, is_hit: bool) -> tuple[Span, str] | None:
        """When the node itself sees the attempt end, and how; None: it has not begun, or nobody sees it."""
        if (is_hit and self.is_final) or fact.started is None:
            return None
        begun = self.clean[fact.started].at
        is_unheard = self.cell.instant == AS or (self.cell.instant == AFTER and self.cell.fault == PAUSE)
        if is_hit and is_unheard and fact.started == self.cell.number:
            return None
        end = begun + plan.seconds
        license_end = self.at + LEASE_SECONDS - MARGIN_SECONDS
        if end > license_end - BEAT_SECONDS and self.course.self_stops:
            assert end > license_end, "too close to tell"
            return Span(self.at, license_end + STOP_SECONDS), "lost"
        return Span(end, end + MOMENT_SECONDS), plan.ending

    def _has_heard(self, number: int) -> bool:
        """Whether the struck node has applied an entry."""
        return number < self.cell.number or self.cell.instant != AS

    # ---- all of them

    def allowed(self) -> set[frozenset[tuple[str, Seen]]]:
        """Everything that may be seen in the end."""
        if self.course.is_divided:
            return self._divided()
        found: set[frozenset[tuple[str, Seen]]] = set()
        for one in self.of("1"):
            if self.course.times == 1:
                found.add(frozenset({("1", one.seen)}))
                continue
            for other in self._second(one):
                found.add(frozenset({("1", one.seen), ("2", other.seen)}))
        return found

    def _second(self, first: Fate) -> list[Fate]:
        """The second run of two, whatever has become of the first."""
        fact = self.facts.get("2")
        if fact is not None and fact.state != "queued":
            return self.of("2")
        if fact is not None or self.overlap != "skip":
            turn = first.ended.not_before(self.second)
            return self._waiting("2", 1, turn, self._started(turn))
        fates = []
        if first.ended.hi > self.second.lo:
            fates.append(Fate(Seen("skipped", "overlap", 1, None), self.second))
        if first.ended.lo < self.second.hi:
            fates += self._waiting("2", 1, self.second, self._started(self.second))
        return fates

    def _divided(self) -> set[frozenset[tuple[str, Seen]]]:
        labels = [label for label in self.facts if "." in label]
        if not labels:
            labels = ["1.0", "1.1"]
            if self.course.is_broadcast:
                unheard = self.victims if not self.has_leader and not self._comes_back() else set()
                labels = [f"1.{name}" for name in ("n1", "n2", "n3") if name not in unheard]
            state = Fact("queued", 1, None, self.cell.number, None)
            self.facts |= dict.fromkeys(labels, state)
        found = set()
        for parts in product(*({fate.seen for fate in self.of(label)} for label in labels)):
            states = [part.state for part in parts]
            whole = (
                "succeeded" if set(states) == {"succeeded"} else next(word for word in WORST_FIRST if word in states)
            )
            found.add(frozenset({("1", Seen(whole, None, 1, None)), *zip(labels, parts, strict=True)}))
        return found


def _first(events: list[Event]) -> list[Event]:
    """Those that may be the first."""
    end = min(span.hi for span, _ in events)
    return [event for event in events if event[0].lo <= end]
