"""What must hold of decisions: each time that a job owes is decided once, and as the job says (I1, I4, I5, I10, I11).

The first node that applies an entry is followed; what a job owes is counted by the ledger (sim_owed.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from raftcron.core import commands as c
from raftcron.core.model import COUNTED_CAUSES, REASON_PAUSED, REASON_REQUESTED, Job, Run
from raftcron.core.state import State
from raftcron.testing.sim_owed import Terms, terms_of

I1 = "I1 one decision"
I4 = "I4 conservation"
I5 = "I5 time and watermark"
I10 = "I10 paused is paused"
I11 = "I11 an edit never fires again"
BACKFILL = "a backfill decides nothing"
REQUESTED = "what is to be skipped is skipped, and nothing else"
DUE = "due within the jitter of its time"

_MOVE_JOBS = c.Decide | c.PutJob | c.DeleteJob | c.PauseJob | c.ResumeJob | c.SkipNext | c.PutCalendar
_SETTLE = c.PutJob | c.DeleteJob | c.PauseJob


class _Known(NamedTuple):
    """What was last seen of a job."""

    watermark: int
    is_paused: bool
    pause_until: int | None
    terms: Terms
    fire_count: int
    skips: tuple[int, ...]
    calendars: tuple[str, ...]  # that it names
    edited_at: int  # its watermark when it was last written

    def owed(self, through: int, fired: int, last_fired: int | None) -> int | None:
        """How many times it owed until then, of which it has fired some; the last of all its runs ends that."""
        if self.terms.left is not None and fired >= self.terms.left:
            through = self.watermark if not fired or last_fired is None else last_fired
        return self.terms.owed(self.watermark, through)


class Decisions:
    """The decisions of one simulation, entry by entry."""

    def __init__(self, fail: Callable[[str, str], None], counts: Counter[str]) -> None:
        self.limits: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # job -> (from which index, limit)
        self.uids: dict[str, int] = {}  # of the jobs that are there
        self.owed_since: dict[int, int] = {}  # job -> cluster time at which its last pause ended, with all it owed then
        self._fail = fail
        self._counts = counts
        self._jobs: dict[int, _Known] = {}
        self._decided: Counter[int] = Counter()  # by this entry, of each job
        self._last_ends: dict[int, int | None] = {}  # of jobs whose times follow from them, before this entry

    def before(self, state: State) -> None:
        """An entry is about to be applied, which nobody has applied yet."""
        self._decided.clear()
        self._last_ends.clear()
        for uid, job in state.by_uid.items():
            if state.policies[uid].recurrence.end_intervals:
                is_busy = any(run.cause in COUNTED_CAUSES for run in state.active.get(uid, {}).values())
                self._last_ends[uid] = None if is_busy else job.last_end

    def row(self, index: int, run: Run, state: State, by: str) -> None:
        """This entry has decided something."""
        if run.cause not in COUNTED_CAUSES or run.part is not None:
            return
        first = run.scheduled_time if run.first is None else run.first
        last = run.scheduled_time if run.last is None else run.last
        known = self._jobs.get(run.uid)
        if known is None or first <= known.watermark:
            through = None if known is None else known.watermark
            checker = I11 if known is not None and first <= known.edited_at else I1
            self._fail(checker, f"{first} of job {run.job} is decided at {index}, decided through {through} already")
        job = state.by_uid.get(run.uid)
        if job is not None and last > job.decided_through:
            self._fail(I5, f"{last} of job {run.job} is decided at {index} beyond the watermark {job.decided_through}")
        if run.reason != REASON_PAUSED:
            if known is not None and known.is_paused:
                self._fail(I10, f"{run.job} is paused, and {run.id} was decided at {index} by {by}")
            if known is not None:
                self._follow_terms(index, run, known, first, last)
            self._decided[run.uid] += 1 if run.count is None else run.count
        self._counts["decisions"] += 1

    def _follow_terms(self, index: int, run: Run, known: _Known, first: int, last: int) -> None:
        """What few jobs say of their times."""
        counts, terms = self._counts, known.terms
        if terms.interval_ms is not None:
            end = self._last_ends.get(run.uid)
            if end is None or first != last or first <= end or (first - end) % terms.interval_ms:
                self._fail(I4, f"{first} of {run.job} is decided at {index}; its last run ended at {end}")
            counts["rule: from last_end"] += 1
        counts["rule: start_at, end_at"] += terms.start_at is not None or terms.end_at is not None
        counts["rule: calendars"] += bool(terms.exclusions)
        counts["rule: max_runs"] += terms.left is not None
        skipped = [at for at in known.skips if first <= at <= last and terms.owed(at - 1, at) != 0]
        if (run.reason == REASON_REQUESTED) != bool(skipped):
            self._fail(REQUESTED, f"{run.id} is {run.state} ({run.reason}) at {index}, to be skipped are {known.skips}")
        counts["rule: skip next"] += bool(skipped)
        if run.count is None:
            late_ms = run.due_at - run.scheduled_time
            if not 0 <= late_ms < max(1, terms.jitter_ms):
                self._fail(DUE, f"{run.id} is due after {late_ms} ms, its jitter is {terms.jitter_ms} ms at the most")
            counts["rule: jitter"] += late_ms > 0

    def entry(
        self,
        index: int,
        at: int,
        command: c.Command,
        state: State,
        touched: Iterable[str],
        limit_ms: float,
        is_new: bool,
    ) -> None:
        """All rows of an entry have been seen; `limit_ms` is what watermarks may have reached, `is_new`: it has
        changed something."""
        if is_new and isinstance(command, _SETTLE):
            self._follow_settled(index, at, self.uids.get(command.name))
            if isinstance(command, c.DeleteJob):
                self.uids.pop(command.name, None)
        if is_new and isinstance(command, c.PutCalendar):
            for uid in state.calendar_jobs.get(command.name, ()):
                self._follow_settled(index, at, uid)
                self._follow_pause(index, uid, command.holds_from)
            self._counts["calendars written"] += 1
        if is_new and isinstance(command, c.Backfill):
            self._follow_backfill(index, command, state, touched)
        if is_new and isinstance(command, c.ResumeJob):
            self._follow_resume(command, state)
        if isinstance(command, _MOVE_JOBS):
            self._follow_jobs(index, state, command, limit_ms)

    def _follow_jobs(self, index: int, state: State, command: c.Command, limit_ms: float) -> None:
        is_edit = not isinstance(command, c.Decide | c.SkipNext | c.PutCalendar)
        calendar = command.name if isinstance(command, c.PutCalendar) else None
        for uid, job in state.by_uid.items():
            known = self._jobs.get(uid)
            if known is not None and job.decided_through == known.watermark and job.revision != index:
                if calendar is not None and calendar in known.calendars:
                    self._jobs[uid] = known._replace(terms=terms_of(state, job))
                continue
            if known is not None:
                self._follow_watermark(index, job, known, limit_ms)
            edited_at = job.decided_through if is_edit or known is None else known.edited_at
            policy = state.policies[uid]
            if known is None or job.revision == index:
                self.limits[uid].append((index, policy.max_running))
            self._jobs[uid] = _Known(
                job.decided_through,
                job.paused,
                job.pause_until,
                terms_of(state, job),
                job.fire_count,
                job.skips,
                policy.recurrence.exclude,
                edited_at,
            )
            self.uids[job.name] = uid

    def _follow_watermark(self, index: int, job: Job, known: _Known, limit_ms: float) -> None:
        if job.decided_through > limit_ms:
            beyond = job.decided_through - limit_ms
            self._fail(I5, f"the watermark of {job.name} is {beyond:.0f} ms beyond the bound at {index}")
        if job.decided_through < known.watermark:
            self._fail(I5, f"the watermark of {job.name} goes from {known.watermark} to {job.decided_through}")
        self._follow_pause(index, job.uid, job.decided_through)
        fired, left = job.fire_count - known.fire_count, known.terms.left
        if left is not None:
            if fired > left:
                self._fail(I4, f"entry {index} fires {job.name} {fired} times, of all its runs {left} were left")
            self._counts["jobs that have had all their runs"] += fired == left > 0
        if not known.is_paused:
            owed = known.owed(job.decided_through, fired, job.last_fired)
            if owed is not None and owed != (decided := self._decided[job.uid]):
                self._fail(I4, f"entry {index} moves {job.name} past {owed} times and decides {decided}")

    def _follow_pause(self, index: int, uid: int, through: int) -> None:
        """What a job owes since its pause is over is not passed by before that is ended."""
        known = self._jobs.get(uid)
        if known is None or not known.is_paused or known.pause_until is None:
            return
        if through > max(known.pause_until, known.watermark):
            self._fail(I4, f"entry {index} goes to {through}; its job's pause is over since {known.pause_until}")

    def _follow_settled(self, index: int, at: int, uid: int | None) -> None:
        """What a job owed as it, or its calendar, was written anew is decided in that very entry."""
        known = self._jobs.get(uid or 0)
        if known is None or known.is_paused:
            return
        owed, decided = known.terms.owed(known.watermark, max(at, known.watermark)), self._decided[uid or 0]
        if known.terms.left is not None and decided >= known.terms.left:
            return  # it has none left, or the last may have been among these
        if owed is not None and owed != decided:
            self._fail(I4, f"entry {index} edits a job that owes {owed} times, and decides {decided}")

    def _follow_resume(self, command: c.ResumeJob, state: State) -> None:
        uid = self.uids[command.name]
        known, job = self._jobs[uid], state.by_uid[uid]
        if known.is_paused:
            self.owed_since[uid] = state.cluster_time
            is_by_itself = command.key is None and command.through == known.pause_until
            self._counts["rule: pause until"] += is_by_itself
            caught_up = known.terms.owed(job.decided_through, state.cluster_time)
            self._counts["rule: resume with catch_up"] += not is_by_itself and bool(caught_up)

    def _follow_backfill(self, index: int, command: c.Backfill, state: State, touched: Iterable[str]) -> None:
        """A run for each time of the calendar in the span that was asked for; nothing is decided by it."""
        uid, times = self.uids[command.name], command.times
        known, job = self._jobs[uid], state.by_uid[uid]
        made = sorted(state.runs[run].scheduled_time for run in touched if state.runs[run].log_index == index)
        owed = known.terms._replace(floor=0).owed(times[0] - 1, times[-1]) if times else 0
        if made != times or owed != len(times) or (times and times[-1] > state.cluster_time):
            self._fail(BACKFILL, f"entry {index} makes runs for {made}, asked for were {times}, {owed} were due there")
        if job.decided_through != known.watermark:
            self._fail(BACKFILL, f"entry {index} moves {job.name} from {known.watermark} to {job.decided_through}")
        self._conserve(state, job)

    def conserve(self, state: State) -> None:
        """I4, for each job: what the calendar counts since it counts is what its counters say."""
        for job in state.by_uid.values():
            self._conserve(state, job)

    def _conserve(self, state: State, job: Job) -> None:
        terms = terms_of(state, job)
        if job.paused or terms.floor:
            return  # nothing is owed; or its counters begin anew when it is looked at next
        owed = terms.owed(job.counted_from, job.decided_through)
        if owed is not None and owed != job.fired + job.skipped:
            self._fail(I4, f"job {job.name} owed {owed}, fired {job.fired}, skipped {job.skipped} at {state.index}")

    def below_the_watermark(self, command: c.Command) -> None:
        """Count what is decided again; apply refuses it."""
        for decision in getattr(command, "decisions", ()):
            known = self._jobs.get(decision.uid)
            is_below = known is not None and decision.through <= known.watermark
            self._counts["decisions below the watermark"] += is_below
