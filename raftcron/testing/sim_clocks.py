"""Wrong clocks of a simulation, and what is judged by the true time: what nodes may have trusted, and what is late."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from raftcron.runtime.clocks import FRESH_SECONDS, ROUND_TRIP_SECONDS
from raftcron.testing.chance import Chance
from raftcron.testing.sim_loop import START_WALL, Conductor, SimClock
from raftcron.testing.sim_owed import terms_of

MAX_CLOCK_SKEW_MS = 5_000
MAX_SKEW_SECONDS = 1.5  # of a wall clock that counts as right, either way
MEMORY_SECONDS = FRESH_SECONDS + ROUND_TRIP_SECONDS  # so long a clock may be believed after it was read
LOOK_SECONDS = 0.1  # between two looks at clocks that nothing was done to
LONE_JUMP_SECONDS = 3_600.0
STEPS = (7.0, 60.0, 3_600.0, 86_400.0, 365 * 86_400.0)  # of a clock that goes wrong, in seconds
RATES = (0.0002, 0.01, 0.2)  # of a clock that drifts, in seconds a second
FORWARD_MAX, BACKWARD_MAX = 12.0, 8.0  # of all clocks together: what is left of it is over before the seed is
CALM_SECONDS = 3.0  # without a fault, until what falls due is expected in time
LATE_MS = 1_100  # then, at most

Happened = Callable[[str, str, str], None]


class TrueTime:
    """The highest time that a majority of the voters' clocks can have shown so far: what I5 is judged by."""

    def __init__(
        self,
        conductor: Conductor,
        clocks: Mapping[str, SimClock],
        alive: Callable[[], Iterable[str]],
        voters: Callable[[], Iterable[Collection[str]]],
    ) -> None:
        """`voters` are those of each configuration that counts now."""
        self._conductor = conductor
        self._clocks = clocks
        self._alive = alive
        self._voters = voters
        self._seen: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)  # (when, offset) of each clock
        self._highest = self._looked_at = float("-inf")

    def look(self) -> None:
        """Take in what the clocks of the living show now."""
        now = self._looked_at = self._conductor.now
        for name in self._alive():
            seen, offset = self._seen[name], self._clocks[name].offset
            while seen and (seen[0][0] < now - MEMORY_SECONDS or seen[-1][1] <= offset):
                seen.popleft() if seen[0][0] < now - MEMORY_SECONDS else seen.pop()
            seen.append((now, offset))
        for voters in self._voters():
            self._highest = max(self._highest, self._of(voters, now - MEMORY_SECONDS))

    def limit_ms(self) -> float:
        """What cluster time and watermarks may have reached, by the skew and half a round trip at most."""
        if self._conductor.now - self._looked_at >= LOOK_SECONDS or self._highest == float("-inf"):
            self.look()  # also where nobody was alive when it was last looked
        return (START_WALL + self._conductor.now + self._highest + ROUND_TRIP_SECONDS / 2) * 1000 + MAX_CLOCK_SKEW_MS

    def _of(self, voters: Collection[str], oldest: float) -> float:
        """What a majority of these has reached; a lone one is believed within the hour only."""
        offsets = sorted(
            (
                max(offset for at, offset in seen if at >= oldest)
                for name in voters
                if (seen := self._kept(name, oldest))
            ),
            reverse=True,
        )
        majority = len(voters) // 2 + 1
        if len(offsets) < majority or (len(voters) == 1 and abs(offsets[0]) > LONE_JUMP_SECONDS):
            return float("-inf")
        return offsets[majority - 1]

    def _kept(self, name: str, oldest: float) -> deque[tuple[float, float]] | None:
        seen = self._seen.get(name)
        return seen if seen and seen[-1][0] >= oldest else None


class WrongClocks:
    """Faults of clocks: fewer than half are wrong at a time, but for jumps that all make together."""

    def __init__(
        self, clocks: Mapping[str, SimClock], names: Collection[str], truth: TrueTime, dice: Chance, happened: Happened
    ) -> None:
        """`names` are the members, as they are at any time."""
        self._clocks = clocks
        self._names = names
        self._truth = truth
        self._dice = dice
        self._happened = happened
        self.wrong: set[str] = set()  # whose clock is further off than MAX_SKEW_SECONDS, or drifts

    def skew(self) -> float:
        return self._dice.uniform(-MAX_SKEW_SECONDS, MAX_SKEW_SECONDS)

    def set(self, name: str, offset: float, rate: float = 0.0) -> None:
        """A clock is this far off from now on."""
        self._truth.look()
        self._clocks[name].set(offset, rate)
        (self.wrong.add if rate or abs(offset) > MAX_SKEW_SECONDS else self.wrong.discard)(name)
        self._truth.look()

    def step(self) -> None:
        """One clock jumps: within the skew, far away, or back."""
        name = self._dice.choice(self._sorted())
        offset = self.skew()
        if name not in self.wrong and self._may_go_wrong(name) and self._dice.random() < 0.7:
            offset += self._dice.choice(STEPS) * self._dice.choice([-1.0, 1.0])
        self.set(name, offset)
        self._happened("clock step", name, f"{offset:+.2f} s")

    def drift(self) -> None:
        """One clock begins to run too fast or too slow."""
        name = self._dice.choice(self._sorted())
        if self._may_go_wrong(name):
            rate = self._dice.choice(RATES) * self._dice.choice([-1.0, 1.0])
            self.set(name, self._clocks[name].offset, rate)
            self._happened("clock drift", name, f"{rate:+} s a second")

    def jump_together(self) -> None:
        """All clocks that are right jump by the same."""
        if self.wrong:
            return
        seconds = self._dice.uniform(-BACKWARD_MAX, FORWARD_MAX)
        for name in self._sorted():
            self.set(name, seconds + self.skew() / 2)
        self._happened("clocks jump together", "", f"{seconds:+.2f} s")

    def right(self) -> None:
        """Somebody sets all clocks that are wrong."""
        for name in sorted(self.wrong):
            self.set(name, self.skew())

    def _may_go_wrong(self, name: str) -> bool:
        """Whether fewer than half would be wrong then."""
        return len((self.wrong & {*self._names}) | {name}) <= (len(self._names) - 1) // 2

    def _sorted(self) -> list[str]:
        return sorted(self._names)


class Undecided:
    """I8: while nothing is wrong, and for a while before, nothing that is owed waits to be decided."""

    def __init__(self, conductor: Conductor, clocks: Mapping[str, SimClock], owed_since: Mapping[int, int]) -> None:
        """`owed_since`: when a job came to owe what it had missed in a pause, see Decisions."""
        self._conductor = conductor
        self._clocks = clocks
        self._owed_since = owed_since
        self._calm: tuple[object, float] = (None, 0.0)  # of what kind, and since when
        self.looks = 0

    def late(self, calm: object, leader: Any) -> str | None:
        """What is late on a leader; `calm` is None while something is wrong, and differs from one calm to another."""
        if calm is None or calm != self._calm[0]:
            self._calm = (calm, self._conductor.now)
            return None
        if self._conductor.now - self._calm[1] < CALM_SECONDS:
            return None
        self.looks += 1
        state = leader.machine.state
        by_now = int((START_WALL + self._conductor.now + self._clocks[leader.name].offset) * 1000) - LATE_MS
        for uid, job in state.by_uid.items():
            if job.paused and job.pause_until is not None and job.pause_until < by_now:
                return f"{job.name} is paused {by_now + LATE_MS - job.pause_until} ms longer than it was to be"
            if job.paused or max(job.decided_through, self._owed_since.get(uid, 0)) >= by_now:
                continue
            terms = terms_of(state, job)
            through = by_now - terms.jitter_ms
            if terms.left == 0:
                owed = 0  # it has had all its runs
            elif terms.interval_ms is None:
                owed = terms.owed(job.decided_through, through) or 0
            elif job.last_end is None or terms.exclusions:
                owed = 0  # its run is at work; or a calendar has a say in what comes behind it
            else:
                at = terms.after_end(job.last_end, job.counted_from)
                owed = int(at is not None and job.decided_through < at <= through)
            if owed:
                return f"{owed} times of {job.name} are not decided {by_now + LATE_MS - job.decided_through} ms later"
        return None
