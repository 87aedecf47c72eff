"""What is due next, for very many jobs: jobs with equal schedules share one cursor.

A group holds the jobs that have the same schedules, zone and anchor.  The heap holds groups, so that a step costs what
is due and not what there is.  A job whose watermark lags behind its group (a decision that failed, a new leader that
takes over half-way) is a straggler and waits in a heap of its own until it is decided again.

Pure: it is told what changed (`update`, `remove`) and asked what is due (`due`); it never decides.
"""

from __future__ import annotations

import functools
import heapq
import re
from collections.abc import Callable

from raftcron.core.model import Job, Policy
from raftcron.core.schedule import Dst, Schedule, next_of, parse

HEAP_SLACK = 1_024  # entries of groups that are gone, beside as many as there are groups
MEMO_KEPT = 8  # watermarks a group remembers the next instant of
MOMENTS_PER_DECISION = 100  # on-time fires of one job in one decision; the rest follows in the next step

GroupKey = tuple[tuple[str, ...], str, str, str, int, str]

_OWN_ANCHOR = re.compile(r"\sfrom\s+\d", re.IGNORECASE)
_HASHED = re.compile(r"(?<![A-Z])H(?![A-Z])", re.IGNORECASE)


@functools.lru_cache(maxsize=65_536)
def _personal(schedules: tuple[str, ...]) -> tuple[bool, bool]:
    """Whether instants depend on the job's anchor, and on its name."""
    anchored = any(text.lower().startswith("@every") and _OWN_ANCHOR.search(text) is None for text in schedules)
    return anchored, any(_HASHED.search(text) is not None for text in schedules if not text.startswith("@"))


def schedules_of(policy: Policy, hash_key: str = "") -> tuple[Schedule, ...]:
    """The parsed schedules of a policy.  Raises ScheduleError if this node cannot read one of them."""
    dst = Dst(policy.gap, policy.fold)
    return tuple(parse(text, policy.timezone, dst=dst, hash_key=hash_key) for text in policy.schedules)


class Group:
    """Jobs that are due at the same instants."""

    __slots__ = ("_memo", "anchor", "key", "members", "next_at", "schedules", "since")

    def __init__(self, key: GroupKey, schedules: tuple[Schedule, ...], anchor: int) -> None:
        self.key = key
        self.schedules = schedules
        self.anchor = anchor
        self.members: set[int] = set()
        self.since = 0  # next_at is the first instant after `since`
        self.next_at: int | None = None
        self._memo: dict[int, int | None] = {}

    def next_after(self, watermark: int) -> int | None:
        """The first instant after a watermark; cheap for the watermarks that most members share."""
        if self.next_at is not None and self.since <= watermark < self.next_at:
            return self.next_at
        try:
            return self._memo[watermark]
        except KeyError:
            found = next_of(self.schedules, watermark, self.anchor)
            if len(self._memo) >= MEMO_KEPT:
                del self._memo[next(iter(self._memo))]
            self._memo[watermark] = found
            return found

    def moments(self, watermark: int, through: int, limit: int = MOMENTS_PER_DECISION) -> list[int]:
        """Instants in (watermark, through], oldest first, at most `limit`."""
        found: list[int] = []
        at = self.next_after(watermark)
        while at is not None and at <= through and len(found) < limit:
            found.append(at)
            at = self.next_after(at)
        return found

    def advance(self, now: int) -> None:
        """Move the cursor to the first instant after now."""
        self.since = max(self.since, now)
        if self.next_at is not None and self.next_at <= now:
            after = next_of(self.schedules, self.next_at, self.anchor)
            if after is not None and after > now:
                self.since, self.next_at = self.next_at, after
                return
        self.next_at = next_of(self.schedules, now, self.anchor)


def _is_due(job: Job | None, group: Group, now: int) -> bool:
    if job is None:
        return False
    at = group.next_after(job.decided_through)
    return at is not None and at <= now


class Timeline:
    """Which jobs have undecided instants, and when the next ones come."""

    def __init__(self) -> None:
        self.groups: dict[GroupKey, Group] = {}
        self.unreadable: dict[int, str] = {}  # jobs whose schedule this node cannot read, and why
        self._heap: list[tuple[int, GroupKey]] = []
        self._stragglers: list[tuple[int, int]] = []
        self._where: dict[int, tuple[Group, Policy, int]] = {}  # a job's group, the policy and anchor it follows from

    def update(self, job: Job, policy: Policy) -> None:
        """The job is new, or its definition, watermark or pause has changed."""
        if job.paused:
            self.remove(job.uid)
            return
        where = self._where.get(job.uid)
        # Equal definitions share one policy object, so nothing has to be compared in depth.
        if where is not None and where[1] is policy and where[2] == job.anchor:
            group = where[0]
        else:
            self.remove(job.uid)
            joined = self._join(job, policy)
            if joined is None:
                return
            group = joined
        if group.next_at is not None and job.decided_through < group.next_at:
            at = group.next_after(job.decided_through)
            if at is not None and at < group.next_at:
                heapq.heappush(self._stragglers, (at, job.uid))
        elif group.next_at is None:
            at = group.next_after(job.decided_through)
            if at is not None:
                self._set_cursor(group, job.decided_through, at)

    def remove(self, uid: int) -> None:
        """The job is gone or paused."""
        self.unreadable.pop(uid, None)
        where = self._where.pop(uid, None)
        if where is not None:
            group = where[0]
            group.members.discard(uid)
            if not group.members:
                del self.groups[group.key]

    def next_at(self) -> int | None:
        """When something is due next; may be early by a removed group, never late."""
        heads = [heap[0][0] for heap in (self._heap, self._stragglers) if heap]
        return min(heads, default=None)

    def due(self, now: int, job_of: Callable[[int], Job | None], limit: int) -> list[int]:
        """Jobs with an undecided instant at or before now, at most about `limit` (a group is never cut)."""
        found: dict[int, None] = {}
        while self._stragglers and self._stragglers[0][0] <= now and len(found) < limit:
            _, uid = heapq.heappop(self._stragglers)
            straggling = self.group_of(uid)
            if straggling is not None and _is_due(job_of(uid), straggling, now):
                found[uid] = None
        while self._heap and self._heap[0][0] <= now and len(found) < limit:
            at, key = heapq.heappop(self._heap)
            group = self.groups.get(key)
            if group is None or group.next_at != at:
                continue  # removed, or moved meanwhile
            for uid in group.members:
                if _is_due(job_of(uid), group, now):
                    found[uid] = None
            group.advance(now)
            if group.next_at is not None:
                heapq.heappush(self._heap, (group.next_at, key))
        return list(found)

    def group_of(self, uid: int) -> Group | None:
        """The cursor of a job; None if it is paused, gone or unreadable."""
        where = self._where.get(uid)
        return None if where is None else where[0]

    @staticmethod
    def _key(job: Job, policy: Policy) -> GroupKey:
        anchored, hashed = _personal(policy.schedules)
        return (
            policy.schedules,
            policy.timezone,
            policy.gap,
            policy.fold,
            job.anchor if anchored else 0,
            job.name if hashed else "",
        )

    def _join(self, job: Job, policy: Policy) -> Group | None:
        key = self._key(job, policy)
        group = self.groups.get(key)
        if group is None:
            try:
                schedules = schedules_of(policy, job.name)
            except ValueError as error:
                self.unreadable[job.uid] = str(error)
                return None
            group = self.groups[key] = Group(key, schedules, key[4])
            at = group.next_after(job.decided_through)
            if at is not None:
                self._set_cursor(group, job.decided_through, at)
        group.members.add(job.uid)
        self._where[job.uid] = (group, policy, job.anchor)
        return group

    def _set_cursor(self, group: Group, since: int, at: int) -> None:
        group.since, group.next_at = since, at
        if len(self._heap) > 2 * len(self.groups) + HEAP_SLACK:  # what edits left behind
            self._heap = [
                (g.next_at, key) for key, g in self.groups.items() if g.next_at is not None and g is not group
            ]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (at, group.key))
