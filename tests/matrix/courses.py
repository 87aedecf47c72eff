"""The courses that runs take if nothing happens, entry by entry, as the rules have them (semantics 3 to 11).

Not here: faults (nodes.py), and what has to come of each (fates.py).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from raftcron.core.instant import rfc3339
from tests.matrix.nodes import Plan
from tests.scenarios.scene import START_MS

ELSEWHERE, ON_LEADER = "elsewhere", "on the leader"
PUT_SECONDS = 0.5  # when the job is written, by the loop's clock
FIRST_SECONDS = 2.0  # the first scheduled time, by the loop's clock
SECOND_SECONDS = 5.0  # from there to the second one, or to what the user does
BACKOFF = "1s"

DONE = Plan(1.0, "succeeded")
LATER, LAST = Plan(1.1, "succeeded"), Plan(1.2, "succeeded")
LONG = Plan(20.0, "succeeded")  # longer than a lease, and than any fault that strikes while it is at work
FAILS = Plan(1.0, "failed")
TIMES_OUT = Plan(1.0, "timed_out")
IS_TAKEN = Plan(1.0, "taken_over")


class Course(NamedTuple):
    """One job, what its user code does, what a user does, and what becomes of the job's runs."""

    name: str
    elsewhere: str  # the entries, one a line: the command, then what it makes of which runs: label, state, attempt
    on_leader: str  # the same where runs are placed on the leader; empty: this course has no such kind
    plans: dict[str, tuple[Plan, ...]] = {"": (DONE,)}  # by label, "" for all others; the last one goes on
    fields: dict[str, Any] = {}
    times: int = 1  # that are scheduled
    deadline: float = math.inf  # of the start, in seconds from the scheduled time
    deed: str = ""  # of the user: `cancel`, or `conclude` as the target would
    deliveries: tuple[str, ...] = ("at_most_once", "at_least_once")

    def job(self, place: str, delivery: str) -> dict[str, Any]:
        placement = {"on": "any", "tags": {"zone": "b"}} if place == ELSEWHERE else {"on": "leader"}
        return {
            "schedule": [f"@at {instant(number)}" for number in range(self.times)],
            "delivery": delivery,
            "placement": placement,
            "misfire": {"grace": "60s"},
            **self.fields,
        }

    @property
    def self_stops(self) -> bool:
        """Whether what runs on a node ends with its lease."""
        return self.fields.get("isolation") != "continue"

    @property
    def is_divided(self) -> bool:
        return "Divide" in self.elsewhere

    @property
    def is_broadcast(self) -> bool:
        return bool(self.fields.get("placement", {}).get("on") == "all")

    def plan(self, label: str, attempt: int) -> Plan:
        plans = self.plans.get(label, self.plans.get("", (DONE,)))
        return plans[min(attempt, len(plans)) - 1]

    def entries(self, place: str) -> list[str]:
        text = self.elsewhere if place == ELSEWHERE else self.on_leader
        return [line.strip() for line in text.strip().splitlines()]


def instant(number: int) -> str:
    """A scheduled time as RFC 3339 has it."""
    return rfc3339(START_MS + round(1_000 * (FIRST_SECONDS + number * SECOND_SECONDS)))


_BEGIN = "Decide: 1 assigned 1\nStart: 1 running 1\n"
_BEGIN_HERE = "Decide: 1 running 1\n"
_AGAIN = "waiting_retry 1\nRequeue: 1 queued 2\nAssign: 1 assigned 2\nStart: 1 running 2\nFinish: 1 succeeded 2"
_AGAIN_HERE = "waiting_retry 1\nRequeue: 1 queued 2\nAssign: 1 running 2\nFinish: 1 succeeded 2"
_SECOND = "Assign: 2 assigned 1\nStart: 2 running 1\nFinish: 2 succeeded 1"
_SECOND_HERE = "Assign: 2 running 1\nFinish: 2 succeeded 1"

COURSES = (
    Course(
        "once",
        _BEGIN + "Finish: 1 succeeded 1",
        _BEGIN_HERE + "Finish: 1 succeeded 1",
        {"1": (LONG, DONE)},
    ),
    Course(
        "goes on without its lease",
        _BEGIN + "Finish: 1 succeeded 1",
        _BEGIN_HERE + "Finish: 1 succeeded 1",
        {"1": (LONG,)},
        {"isolation": "continue"},
        deliveries=("at_most_once",),
    ),
    Course(
        "retry",
        _BEGIN + "Finish: 1 " + _AGAIN,
        _BEGIN_HERE + "Finish: 1 " + _AGAIN_HERE,
        {"1": (FAILS, DONE)},
        {"retry": {"max_attempts": 5, "backoff": BACKOFF}},
    ),
    Course(
        "time-out",
        _BEGIN + "Finish: 1 timed_out 1",
        _BEGIN_HERE + "Finish: 1 timed_out 1",
        {"1": (TIMES_OUT,)},
        {"retry": {"max_attempts": 5, "backoff": BACKOFF}},  # on `failed`, unless said otherwise
        deliveries=("at_most_once",),
    ),
    Course(
        "time-out, retried",
        "",
        _BEGIN_HERE + "Finish: 1 " + _AGAIN_HERE,
        {"1": (TIMES_OUT, DONE)},
        {"retry": {"max_attempts": 5, "backoff": BACKOFF, "on": ["timed_out"]}},
    ),
    Course(
        "start deadline",
        _BEGIN + "Finish: 1 succeeded 1",
        "",
        {"1": (DONE,)},
        {"start_deadline": "2s"},
        deadline=2.0,
        deliveries=("at_most_once",),
    ),
    Course(
        "start deadline between silence and loss",
        _BEGIN + "Finish: 1 succeeded 1",
        "",
        {"1": (DONE,)},
        {"start_deadline": "4600ms"},
        deadline=4.6,
        deliveries=("at_most_once",),
    ),
    Course(
        "cancel",
        _BEGIN + "Cancel: 1 cancelling 1\nFinish: 1 cancelled 1",
        _BEGIN_HERE + "Cancel: 1 cancelling 1\nFinish: 1 cancelled 1",
        {"1": (LONG,)},
        deed="cancel",
    ),
    Course(
        "cancel between attempts",
        _BEGIN + "Finish: 1 waiting_retry 1\nCancel: 1 cancelled 1",
        _BEGIN_HERE + "Finish: 1 waiting_retry 1\nCancel: 1 cancelled 1",
        {"1": (FAILS,)},
        {"retry": {"max_attempts": 5, "backoff": "1h", "max_backoff": "1h"}},
        deed="cancel",
        deliveries=("at_most_once",),
    ),
    Course(
        "overlap skip",
        _BEGIN + "Decide: 2 skipped 1\nFinish: 1 succeeded 1",
        _BEGIN_HERE + "Decide: 2 skipped 1\nFinish: 1 succeeded 1",
        {"1": (LONG,)},
        {"overlap": {"policy": "skip"}},
        times=2,
    ),
    Course(
        "overlap queue",
        _BEGIN + "Decide: 2 queued 1\nFinish: 1 succeeded 1\n" + _SECOND,
        _BEGIN_HERE + "Decide: 2 queued 1\nFinish: 1 succeeded 1\n" + _SECOND_HERE,
        {"1": (LONG,)},
        {"overlap": {"policy": "queue"}},
        times=2,
        deliveries=("at_least_once",),
    ),
    Course(
        "overlap replace",
        _BEGIN + "Decide: 1 cancelling 1, 2 queued 1\nFinish: 1 cancelled 1\n" + _SECOND,
        _BEGIN_HERE + "Decide: 1 cancelling 1, 2 queued 1\nFinish: 1 cancelled 1\n" + _SECOND_HERE,
        {"1": (LONG,)},
        {"overlap": {"policy": "replace"}},
        times=2,
        deliveries=("at_least_once",),
    ),
    Course(
        "shards",
        "Decide: 1 queued 1\nDivide: 1 running 1, 1.0 queued 1, 1.1 queued 1\n"
        "Assign: 1.0 assigned 1, 1.1 assigned 1\nStart: 1.1 running 1\nStart: 1.0 running 1\n"
        "Finish: 1.0 succeeded 1\nFinish: 1 succeeded 1, 1.1 succeeded 1",
        "",
        {"1.1": (LATER,)},
        {"placement": {"on": "least_loaded", "tags": {"zone": "b"}, "shards": 2}},
        deliveries=("at_least_once",),
    ),
    Course(
        "broadcast",
        "Decide: 1 queued 1\nDivide: 1 running 1, 1.n1 queued 1, 1.n2 queued 1, 1.n3 queued 1\n"
        "Assign: 1.n1 running 1, 1.n2 assigned 1, 1.n3 assigned 1\nStart: 1.n2 running 1\nStart: 1.n3 running 1\n"
        "Finish: 1.n1 succeeded 1\nFinish: 1.n2 succeeded 1\nFinish: 1 succeeded 1, 1.n3 succeeded 1",
        "",
        {"1.n2": (LATER,), "1.n3": (LAST,)},
        {"placement": {"on": "all"}},
        deliveries=("at_least_once",),
    ),
    Course(
        "long call",
        _BEGIN + "TakeOver: 1 with_target 1\nConclude: 1 succeeded 1",
        _BEGIN_HERE + "TakeOver: 1 with_target 1\nConclude: 1 succeeded 1",
        {"1": (IS_TAKEN,)},
        {"executor": {"type": "http", "url": "http://target/", "async": True}, "timeout": "5m"},
        deed="conclude",
        deliveries=("at_most_once",),
    ),
)
