"""Which rows of ended runs are kept, and for how long: of each job, of deleted jobs, and of all together.

Rows leave a job's history by its own bound, the whole history by that of the cluster, and the output tails by theirs;
the last run of a job never leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from raftcron.core.model import COUNTED_CAUSES, ENDED, SKIPPED, Job, Run
from raftcron.core.placement import part_id
from raftcron.core.records import HASHERS, MODULUS, Record, Records, encode, head_hash
from raftcron.core.rows import FAILURES, Line, end_of, newest_first

ORPHANS_KEPT = 10_000  # runs of deleted jobs
TAILS_BYTES_KEPT = 64 << 20  # output tails of all runs together
LEAVING_PER_ROW = 4  # rows that leave beyond the bound of the history, for each that is sealed: no entry takes long


class History(Records):
    """The records, and in which order the rows among them leave."""

    def __init__(self) -> None:
        super().__init__()
        self.orphans: deque[str] = deque()  # runs of deleted jobs, oldest first
        self.tails: deque[str] = deque()  # runs that have an output tail, oldest first
        self.tails_bytes = 0
        self.ordinary = Line()  # ended rows but each job's last run, in the order in which they leave for want of room
        self.failures = Line()  # and these after all of those
        self.history_bytes = 0  # of such rows
        # uid -> rows that have ended and are kept, in order of their end; none where that is the last run at most, as
        # for most of a million jobs
        self.history: dict[int, list[str]] = {}
        self.ended_parts: list[Run] = []  # within the entry; apply/parts.py tells their parents
        # runs that have ended within the entry and that others may follow, in that order (apply/chains.py)
        self.ended: list[Run] = []

    # ---- questions

    def runs_of(self, uid: int) -> list[Run]:
        """The rows kept for a job, newest first."""
        rows = [self.runs[run_id] for run_id in self.ended_of(uid)]
        rows.extend(self.active.get(uid, {}).values())
        rows.extend([self.runs[run_id] for run_id in self.kept_parts([row.id for row in rows])])
        rows.sort(key=newest_first)
        return rows

    def ended_of(self, uid: int) -> list[str]:
        """The rows of a job that have ended and are kept, in order of their end."""
        rows = self.history.get(uid)
        if rows is not None:
            return rows
        job = self.by_uid.get(uid)
        last = None if job is None else job.last_run
        return [] if last is None or last not in self.runs or last in self.active.get(uid, ()) else [last]

    def kept_parts(self, run_ids: Iterable[str]) -> Iterator[str]:
        """The ids of those parts of divided runs that are kept."""
        for run_id in run_ids:
            for name in self.divided.get(run_id, ()):
                if (part := part_id(run_id, name)) in self.runs:
                    yield part

    # ---- changes: for core.apply alone

    def touch(self, record: Record) -> None:
        """The record has changed or is new."""
        self._touched[id(record)] = record
        if isinstance(record, Run) and (packed := self.runs.packed(record.id)) is not None:
            self.runs.put(record)  # counted again when it is sealed
            if not self._is_last(record):
                self.history_bytes -= end_of(packed)[0]

    def remove_job(self, job: Job) -> None:
        """The job goes; its rows stay readable by id among the orphans."""
        rows = self.ended_of(job.uid)
        self._forget_names(job)
        del self.jobs[job.name]
        del self.by_uid[job.uid]
        del self.policies[job.uid]
        self.touched_jobs.add(job.uid)
        self.noted_jobs[job.uid] = job
        self.forget(job)
        if job.last_run is not None:
            self._may_leave(job.last_run)
        self.history.pop(job.uid, None)
        for run_id in rows:
            self._keep_orphan(run_id)

    def set_last_run(self, job: Job, run: Run) -> None:
        """A run of the job is its last one now: kept for ever, while the one before is kept as others are."""
        before = job.last_run
        if before is not None:
            if job.uid not in self.history and (rows := self.ended_of(job.uid)):
                self.history[job.uid] = rows
            self._may_leave(before)
        job.last_run = run.id
        self._touched[id(job)] = job

    def keep_tail(self, run: Run, tail: bytes) -> None:
        """Keep the end of what its newest attempt said, in place of what an earlier one had.

        The oldest tails of the cluster leave first.
        """
        if run.output_tail:
            self.tails_bytes -= len(run.output_tail)
        elif tail:
            self.tails.append(run.id)
        run.output_tail = tail
        self.tails_bytes += len(tail)
        if len(self.tails) > 2 * len(self.runs) + 1024:  # rows that left took their tails along, silent attempts too
            self.tails = deque(dict.fromkeys(run_id for run_id in self.tails if run_id in self.runs))
        while self.tails_bytes > TAILS_BYTES_KEPT:
            old = self.runs.get(self.tails.popleft())
            if old is not None and old.output_tail:
                self.tails_bytes -= len(old.output_tail)
                old.output_tail = b""
                self.touch(old)

    def seal(self) -> None:
        """The entry is done: bring the digest up to date, pack what has ended, keep the history within its bound."""
        packed = self._seal_touched()
        if self.history_bytes > self.history_total:
            self._make_room(packed * LEAVING_PER_ROW)
            self._seal_touched()  # the jobs whose rows have left
        digest = self.digest
        head = (self.epoch, self.lead_index, self.cluster_time, self.next_token, self.history_total, self.leader)
        if head != self._head:
            digest -= self._head_hash
            self._head, self._head_hash = head, head_hash(*head)
            digest += self._head_hash
        self.digest = digest % MODULUS

    def bound_rows(self, job: Job) -> None:
        """The oldest rows of a job leave until no more are kept than its definition says; its last run stays."""
        rows = self.history.get(job.uid, [])
        kept = max(1, self.policies[job.uid].history_runs)
        while len(rows) > kept:
            oldest = rows.pop(0)
            if oldest == job.last_run and len(rows) >= kept:
                rows.append(oldest)  # the last run is kept for ever; one row at most is moved
                oldest = rows.pop(0)
            self._note_unkept(job, self.runs[oldest])
            self._drop(oldest)

    # ---- details

    def _seal_touched(self) -> int:
        """Hash anew what has changed; how many rows among it have ended, and lie packed now."""
        digest = self.digest
        packed = 0
        for record in self._touched.values():  # record_hash, written out: a third of what a run costs is here
            digest -= record.digest
            record.digest = 0
            hasher = HASHERS[type(record)].copy()
            data = encode(record)
            hasher.update(data)
            hashed = hasher.digest()
            record.digest = fresh = int.from_bytes(hashed, "little")
            digest += fresh
            if isinstance(record, Run) and record.state in ENDED:
                self.runs.pack(record.id, data, record, hashed)
                packed += 1
                if not self._is_last(record):
                    self.history_bytes += len(data) - len(record.output_tail)
        self._touched.clear()
        self.digest = digest
        return packed

    def _end(self, run: Run) -> None:
        if run.part is not None:
            self._stand_in_line(run.id, is_failure=run.state in FAILURES)
            self.ended_parts.append(run)
            return
        job = self.by_uid.get(run.uid)
        if job is None or job.last_run != run.id:
            self._stand_in_line(run.id, is_failure=run.state in FAILURES)
        if job is None:
            self._keep_orphan(run.id)
            return
        if job.name in self.children and run.state != SKIPPED:
            self.ended.append(run)
        policy = self.policies[run.uid]
        if policy.recurrence.end_intervals and run.cause in COUNTED_CAUSES:
            self._note_end(job, run)
        rows = self.history.get(run.uid)
        if rows is None:
            if job.last_run == run.id:
                return
            rows = self.history[run.uid] = self.ended_of(run.uid)  # a deque would take 600 bytes more a job
        rows.append(run.id)
        self.bound_rows(job)

    def _note_end(self, job: Job, run: Run) -> None:
        """For schedules `from last_end`: what came of a scheduled time is over, and no other run of it is active."""
        if not any(other.cause in COUNTED_CAUSES for other in self.active.get(job.uid, {}).values()):
            job.last_end = max(job.last_end or 0, run.finished_at or 0)
            self.touch_job(job)

    def _is_last(self, run: Run) -> bool:
        job = self.by_uid.get(run.uid)
        return job is not None and job.last_run == run.id

    def _is_in_order(self, rows: Sequence[str]) -> bool:
        """Whether rows of one job ended one after the other as they were decided."""
        if len(rows) < 2:
            return True
        return all(first < second for first, second in pairwise(self.runs[run_id].log_index for run_id in rows))

    def _may_leave(self, run_id: str) -> None:
        """What was the last run of its job is no more; if it is still active it stands in line at its end."""
        packed = self.runs.packed(run_id)
        if packed is not None:
            size, _, is_failure, _ = end_of(packed)
            self.history_bytes += size
            self._stand_in_line(run_id, is_failure=is_failure)
        elif (run := self.runs.get(run_id)) is not None and run.state in ENDED:  # by this very entry
            self._stand_in_line(run_id, is_failure=run.state in FAILURES)

    def _stand_in_line(self, run_id: str, *, is_failure: bool) -> None:
        line = self.failures if is_failure else self.ordinary
        line.append(run_id, self.runs)

    def _make_room(self, most: int) -> None:
        """Rows leave until all fit, or `most` have left: the oldest first, failures after all others."""
        while self.history_bytes > self.history_total and most > 0:
            most -= 1
            run_id = self.ordinary.pop(self.runs) or self.failures.pop(self.runs)
            if run_id is None:
                return
            run = self.runs[run_id]
            rows = self.history.get(run.uid)
            if rows is not None and run.part is None:
                rows.remove(run_id)
            job = self.by_uid.get(run.uid)
            if job is not None:
                self._note_unkept(job, run)
            self._drop(run_id)

    def _note_unkept(self, job: Job, run: Run) -> None:
        """A row of the job is about to leave; if it tells of a scheduled time, `why` has to know that once it did."""
        if run.due_at > job.unkept_through and run.cause in COUNTED_CAUSES and run.part is None:
            job.unkept_through = run.due_at  # that of the time, or behind it by the jitter: `why` is asked for either
            self.count_job(job)

    def _keep_orphan(self, run_id: str) -> None:
        self.orphans.append(run_id)
        if len(self.orphans) > ORPHANS_KEPT and (oldest := self.orphans.popleft()) in self.runs:
            self._drop(oldest)

    def _drop(self, run_id: str) -> None:
        """A row that is no job's last run leaves, with its parts."""
        for name in self.divided.pop(run_id, ()):
            if (part := part_id(run_id, name)) in self.runs:
                self._drop(part)
        row = self.runs.pop(run_id)
        self.touched_runs.add(run_id)
        if isinstance(row, bytes):
            size, tail_bytes, _, digest = end_of(row)
            self.tails_bytes -= tail_bytes
            self.history_bytes -= size
            self.digest = (self.digest - int.from_bytes(digest, "little")) % MODULUS
        else:
            self.tails_bytes -= len(row.output_tail)
            row.output_tail = b""
            self.forget(row)
