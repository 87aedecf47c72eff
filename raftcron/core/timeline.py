"""What is due next, for very many jobs: jobs whose times are the same share one cursor.

A group's cursor is an instant before which none of its jobs has an undecided time, but for those that are *behind*
(nobody has looked at them since the cursor moved) and those that wait in a heap one by one, because a decision failed
or because jitter spreads them.  The cursor moves when its instant comes (on the leader, in `due`) or when a decision of
it has applied (everywhere, in `update`), so that a new leader looks at what was left undecided and at nothing else.
A step costs what is due and not what there is, and no more than its limit.

Pure: it is told what changed (`update`, `remove`, `reread`) and asked what is due (`due`); it never decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping

from raftcron.core.exclusion import Exclusion, exclusion_of
from raftcron.core.model import Calendar, Job, Policy, Recurrence
from raftcron.core.schedule import Schedule, ScheduleError
from raftcron.core.times import Times, read_schedules, schedules_of, times_of

__all__ = ["ACTIVE", "ENDED", "PAUSED", "Group", "Timeline", "schedules_of"]

HEAP_SLACK = 1_024  # entries of groups that have moved or gone, beside as many as there are groups
MEMO_KEPT = 8  # watermarks a group remembers the next instant of
MOMENTS_PER_DECISION = 100  # on-time fires of one job in one decision; the rest follows in the next step

ACTIVE, PAUSED, ENDED = "active", "paused", "ended"

GroupKey = tuple[Recurrence, int, str, int | None, int]
Reader = Callable[[Recurrence, str], tuple[Schedule, ...]]


class Group:
    """Jobs that are due at the same instants, or within the jitter after them.

    `key` is the recurrence and what is the job's own where it matters: anchor, name, last end, since when it counts.
    """

    __slots__ = ("_memo", "behind", "behind_at", "floor", "is_stale", "key", "members", "next_at", "plain", "revision",
                 "serial", "since", "times")  # fmt: skip

    def __init__(self, key: GroupKey, serial: int, times: Times) -> None:
        self.key = key
        self.serial = serial
        self.members: set[int] = set()
        self.behind: set[int] = set()  # members that may have an undecided time before the cursor
        self.behind_at = 0  # no such time is earlier
        self.since = 0
        self.next_at: int | None = None  # the cursor: the first time after `since`; not known yet if the two are equal
        self.take(times)

    def take(self, times: Times) -> None:
        """From now on these are the times."""
        self.times = times
        self.is_stale = False
        recurrence = self.key[0]
        is_plain = not (recurrence.is_anchored or recurrence.end_intervals)
        self.plain = recurrence if is_plain else None  # a job that keeps it belongs here, whatever else changes
        self.floor = times.floor
        self.revision = max((exclusion.revision for exclusion in times.exclusions), default=0)
        self._memo: dict[int, int | None] = {}

    def watermark(self, job: Job) -> int:
        """Through which instant a member is decided: what a calendar said before it changed is over."""
        through = job.decided_through
        if through > self.floor or job.counted_index > self.revision:
            return through
        changed = [one.holds_from for one in self.times.exclusions if one.revision > job.counted_index]
        return max(through, *changed) if changed else through

    def next_after(self, after: int) -> int | None:
        """The first time after an instant; cheap for the watermarks that most members share."""
        if self.next_at is not None and self.since <= after < self.next_at:
            return self.next_at
        try:
            return self._memo[after]
        except KeyError:
            found = self.times.next(after)
            if len(self._memo) >= MEMO_KEPT:
                del self._memo[next(iter(self._memo))]
            self._memo[after] = found
            return found

    def moments(self, after: int, through: int, limit: int = MOMENTS_PER_DECISION) -> list[int]:
        """Times in (after, through], oldest first, at most `limit`."""
        found: list[int] = []
        at = self.next_after(after)
        while at is not None and at <= through and len(found) < limit:
            found.append(at)
            at = self.next_after(at)
        return found

    def due_at(self, uid: int, at: int) -> int:
        """When a member is due for one of the times."""
        if not self.times.jitter_ms:
            return at
        return self.times.due_at(uid, at, self.next_after(at))

    def due_through(self, uid: int, now: int, first: int) -> int:
        """The latest instant up to which a member, whose first undecided time is `first`, is due at `now`."""
        if not self.times.jitter_ms or first > now:
            return now
        after = self.next_after(first)
        last = first if after is None or after > now else self.times.previous(now + 1)
        return last - 1 if last is not None and self.due_at(uid, last) > now else now

    def move(self, after: int) -> None:
        """Put the cursor to the first time after an instant."""
        self.since, self.next_at = after, self.next_after(after)


class Timeline:
    """Which jobs have undecided times, when the next ones come, and when pauses end.

    `calendars` are the exclusion calendars by name; `read` is how schedules are read, which a test may change.
    """

    def __init__(self, calendars: Mapping[str, Calendar], read: Reader = read_schedules) -> None:
        self.calendars = calendars
        self.unreadable: dict[int, str] = {}  # jobs whose times this node cannot tell, and why
        self.groups: dict[GroupKey, Group] = {}
        self._read = read
        self._serials = 0
        self._by_serial: dict[int, Group] = {}
        self._by_calendar: dict[str, set[int]] = {}  # serials
        self._where: dict[int, Group] = {}  # by uid
        self._cursors: list[tuple[int, int]] = []  # heap of (cursor, serial)
        self._singles: list[tuple[int, int]] = []  # heap of (due_at, uid)
        self._behind: dict[int, Group] = {}  # by serial: those with members behind
        self._pauses: list[tuple[int, int]] = []  # heap of (end, uid)
        self._pause_of: dict[int, int] = {}  # when the pause of a job ends
        self._ending: set[int] = set()  # jobs whose pause is over, and that `pauses_over` has named
        self._at_hand: list[int] = []  # members of a group whose instant has come
        self._at_hand_at = 0

    # ---- what changed

    def update(self, job: Job, policy: Policy) -> None:
        """The job is new, or its definition, watermark, last end or pause has changed."""
        uid = job.uid
        if job.paused or (policy.max_runs and job.fire_count >= policy.max_runs):
            if job.paused and job.pause_until is not None and self._pause_of.get(uid) == job.pause_until:
                return  # as it was
            self.remove(uid)
            if job.paused and job.pause_until is not None:
                self._pause(uid, job.pause_until)
            return
        self._forget_pause(uid)
        recurrence = policy.recurrence
        group = self._where.get(uid)
        if group is None or (group.plain is not recurrence and (group.is_stale or not _suits(group, job, recurrence))):
            if group is not None or self.unreadable:
                self.remove(uid)
            group = self._join(job, recurrence)
            if group is None:
                return
        watermark, next_at = group.watermark(job), group.next_at
        if next_at is None or not group.since <= watermark < next_at:
            self._place(group, uid, watermark)
        elif group.behind:
            self._has_caught_up(group, uid)

    def _place(self, group: Group, uid: int, watermark: int) -> None:
        """A member's watermark lies before or beyond the stretch that the cursor ends."""
        if group.next_at is not None and watermark >= group.next_at:
            self._pass(group, watermark)
        at = group.next_after(watermark)
        if at is None or (group.next_at is not None and at >= group.next_at):
            if group.behind:
                self._has_caught_up(group, uid)
        elif uid not in group.behind:
            self._wait(uid, group.due_at(uid, at))

    def remove(self, uid: int) -> None:
        """The job is gone, paused, or over."""
        self.unreadable.pop(uid, None)
        self._forget_pause(uid)
        group = self._where.pop(uid, None)
        if group is not None:
            group.members.discard(uid)
            self._has_caught_up(group, uid)
            if not group.members:
                self._drop(group)

    def reread(self, calendar: str) -> None:
        """An exclusion calendar has changed: what lies ahead of its jobs is worked out anew, when it is asked for."""
        record = self.calendars.get(calendar)
        if record is None:
            return  # no job names it
        for serial in self._by_calendar.get(calendar, ()):
            group = self._by_serial[serial]
            group.is_stale, group.plain = True, None
            group.since = group.next_at = max(group.floor, record.holds_from)
            heapq.heappush(self._cursors, (group.next_at, serial))

    # ---- what is due

    def next_at(self) -> int | None:
        """When something is due next; may be early, never late."""
        heads = [heap[0][0] for heap in (self._cursors, self._singles, self._pauses) if heap]
        if self._at_hand:
            heads.append(self._at_hand_at)
        if self._behind:
            heads.append(next(iter(self._behind.values())).behind_at)
        return min(heads, default=None)

    def due(self, now: int, job_of: Callable[[int], Job | None], limit: int) -> list[int]:
        """Jobs to decide at `now`, each once, for the work of about `limit` jobs; more is due while next_at() <= now.

        All that have an undecided time are named sooner or later, with some that have none: those that share a group
        with them.  The caller tells by `update` if it decides nothing for one that has.
        """
        found: dict[int, None] = {}
        work = 0
        while work < limit:
            if self._at_hand:
                part = self._at_hand[work - limit :]
                del self._at_hand[work - limit :]
                found.update(dict.fromkeys(part))
                work += len(part)
            elif self._singles and self._singles[0][0] <= now:
                self._look(heapq.heappop(self._singles)[1], now, job_of, found)
                work += 1
            elif self._behind:
                group = next(iter(self._behind.values()))
                uid = group.behind.pop()
                if not group.behind:
                    del self._behind[group.serial]
                self._look(uid, now, job_of, found)
                work += 1
            elif self._cursors and self._cursors[0][0] <= now:
                work += self._reach(*heapq.heappop(self._cursors), now)
            else:
                break
        return list(found)

    def pauses_over(self, now: int, limit: int) -> list[int]:
        """Jobs whose pause has come to its end at `now`, each once; the caller tells by `update` if it goes on."""
        found: list[int] = []
        while self._pauses and self._pauses[0][0] <= now and len(found) < limit:
            at, uid = heapq.heappop(self._pauses)
            if self._pause_of.get(uid) == at:
                del self._pause_of[uid]
                self._ending.add(uid)
                found.append(uid)
        return found

    def paused_until(self, now: int) -> list[int]:
        """All jobs whose pause has come to its end at `now` and is not ended, named by `pauses_over` or not."""
        return [*self._ending, *(uid for uid, at in self._pause_of.items() if at <= now)]

    def owing(self, jobs: Iterable[Job], now: int) -> list[Job]:
        """Those of the jobs that have an undecided time at or before now, waiting for its jitter or not."""
        found: list[Job] = []
        for job in jobs:
            group = self._where.get(job.uid)
            if group is None:
                continue
            next_at = group.next_at
            if next_at is not None and group.since <= job.decided_through and next_at > now and not group.is_stale:
                continue  # most of them
            group = self.group_of(job.uid)
            at = None if group is None else group.next_after(group.watermark(job))
            if at is not None and at <= now:
                found.append(job)
        return found

    # ---- what is known of a job

    def group_of(self, uid: int) -> Group | None:
        """The group of a job; None if it is paused, over, gone or unreadable."""
        group = self._where.get(uid)
        return group if group is None or self._is_fresh(group) else None

    def times(self, job: Job, policy: Policy) -> Times:
        """A job's times, paused or not.  Raises ScheduleError if this node cannot tell them."""
        return self._times(self.key_of(job, policy))

    def state_of(self, job: Job, policy: Policy) -> str:
        """ACTIVE, PAUSED, or ENDED: no time will fire it again, nor does it wait to be asked (`@manual`)."""
        if job.paused:
            return PAUSED
        if policy.max_runs and job.fire_count >= policy.max_runs:
            return ENDED
        recurrence = policy.recurrence
        if recurrence.end_intervals and job.last_end is None:
            return ACTIVE  # what follows depends on the run
        group = self.group_of(job.uid)
        if group is None or group.next_after(group.watermark(job)) is not None:
            return ACTIVE
        return ACTIVE if any(text.strip().lower() == "@manual" for text in recurrence.schedules) else ENDED

    @staticmethod
    def key_of(job: Job, policy: Policy) -> GroupKey:
        """What jobs share that are due at the same instants."""
        return _key(job, policy.recurrence)

    # ---- details

    def _times(self, key: GroupKey) -> Times:
        recurrence, anchor, name, last_end, since = key
        exclusions = [self._exclusion(calendar) for calendar in recurrence.exclude]
        since = max([since, *(exclusion.holds_from for exclusion in exclusions)])
        return times_of(recurrence, self._read(recurrence, name), anchor, exclusions, last_end, since)

    def _exclusion(self, calendar: str) -> Exclusion:
        record = self.calendars.get(calendar)
        if record is None:
            raise ScheduleError(f"there is no calendar {calendar!r}", None, "make it, or leave it out of `exclude`")
        return exclusion_of(record)

    def _join(self, job: Job, recurrence: Recurrence) -> Group | None:
        key = _key(job, recurrence)
        group = self.groups.get(key)
        if group is None or not self._is_fresh(group):
            try:
                group = Group(key, self._serials, self._times(key))
                group.move(group.watermark(job))
            except Exception as error:  # what this node cannot read stops this job alone
                self.unreadable[job.uid] = str(error) if isinstance(error, ScheduleError) else repr(error)
                return None
            self._serials += 1
            self.groups[key] = self._by_serial[group.serial] = group
            for calendar in recurrence.exclude:
                self._by_calendar.setdefault(calendar, set()).add(group.serial)
            self._point(group)
        group.members.add(job.uid)
        self._where[job.uid] = group
        return group

    def _drop(self, group: Group) -> None:
        del self.groups[group.key], self._by_serial[group.serial]
        self._behind.pop(group.serial, None)
        for calendar in group.key[0].exclude:
            serials = self._by_calendar[calendar]
            serials.discard(group.serial)
            if not serials:
                del self._by_calendar[calendar]

    def _is_fresh(self, group: Group) -> bool:
        """Whether the group's times are what its calendars say; it is gone if this node cannot tell."""
        if group.is_stale:
            try:
                group.take(self._times(group.key))
            except Exception as error:
                for uid in group.members:
                    del self._where[uid]
                    self.unreadable[uid] = str(error) if isinstance(error, ScheduleError) else repr(error)
                self._drop(group)
                return False
        return True

    def _reach(self, at: int, serial: int, now: int) -> int:
        """A cursor's instant has come: its group's members are at hand, or looked at one by one.  What it cost."""
        group = self._by_serial.get(serial)
        if group is None or group.next_at != at or not self._is_fresh(group):
            return 1
        if group.since == at:
            group.move(at)
        else:
            if group.times.jitter_ms:
                self._leave_behind(group)
            else:
                self._at_hand, self._at_hand_at = list(group.members), at
            after = group.next_after(at)
            if after is not None and after <= now:
                group.move(now)
            else:
                group.since, group.next_at = at, after
        self._point(group)
        return group.times.work

    def _pass(self, group: Group, watermark: int) -> None:
        """A member is decided beyond the cursor: it moves, and nobody knows of the others."""
        if len(group.members) > 1:
            self._leave_behind(group)
        group.move(watermark)
        self._point(group)

    def _leave_behind(self, group: Group) -> None:
        if not group.behind and group.next_at is not None:
            group.behind_at = group.next_at
        group.behind |= group.members
        self._behind[group.serial] = group

    def _has_caught_up(self, group: Group, uid: int) -> None:
        group.behind.discard(uid)
        if not group.behind:
            self._behind.pop(group.serial, None)

    def _look(self, uid: int, now: int, job_of: Callable[[int], Job | None], found: dict[int, None]) -> None:
        """Whether a job is due; if it will be before its group's cursor, it waits by itself."""
        group, job = self.group_of(uid), job_of(uid)
        if group is None or job is None:
            return
        at = group.next_after(group.watermark(job))
        if at is None or (group.next_at is not None and at >= group.next_at):
            return
        due_at = group.due_at(uid, at)
        if due_at <= now:
            found[uid] = None
        else:
            self._wait(uid, due_at)

    def _wait(self, uid: int, due_at: int) -> None:
        if len(self._singles) > 2 * len(self._where) + HEAP_SLACK:  # what was decided meanwhile by another leader
            earliest = {single: at for at, single in sorted(self._singles, reverse=True)}
            self._singles = sorted((at, single) for single, at in earliest.items())
        heapq.heappush(self._singles, (due_at, uid))

    def _forget_pause(self, uid: int) -> None:
        if self._pause_of or self._ending:  # seldom
            self._pause_of.pop(uid, None)
            self._ending.discard(uid)

    def _pause(self, uid: int, until: int) -> None:
        self._pause_of[uid] = until
        if len(self._pauses) > 2 * len(self._pause_of) + HEAP_SLACK:  # of pauses that ended otherwise
            self._pauses = [(at, paused) for paused, at in self._pause_of.items()]
            heapq.heapify(self._pauses)
        else:
            heapq.heappush(self._pauses, (until, uid))

    def _point(self, group: Group) -> None:
        """Let the heap know where the group's cursor stands."""
        if group.next_at is None:
            return
        if len(self._cursors) > 2 * len(self.groups) + HEAP_SLACK:
            self._cursors = [(g.next_at, g.serial) for g in self.groups.values() if g.next_at is not None]
            heapq.heapify(self._cursors)
        else:
            heapq.heappush(self._cursors, (group.next_at, group.serial))


def _key(job: Job, recurrence: Recurrence) -> GroupKey:
    """The recurrence, and what is the job's own where it matters: anchor, name, last end, since when it counts."""
    anchor = job.anchor if recurrence.is_anchored else 0
    name = job.name if recurrence.is_hashed and recurrence.hash_key is None else ""
    if recurrence.end_intervals:
        return (recurrence, anchor, name, job.last_end, job.counted_from)
    return (recurrence, anchor, name, None, 0)


def _suits(group: Group, job: Job, recurrence: Recurrence) -> bool:
    """Whether the job belongs where it is."""
    key = group.key
    if key[0] is not recurrence and key[0] != recurrence:
        return False
    if recurrence.is_anchored and key[1] != job.anchor:
        return False
    return not recurrence.end_intervals or (key[3] == job.last_end and key[4] == job.counted_from)
