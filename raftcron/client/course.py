"""The course of one request over the nodes of a cluster: whom to ask next, how long to wait, when to give up.

Pure: a generator that says what to do and is told what came of it, so that the synchronous and the asynchronous client
behave alike by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Final, NamedTuple

from raftcron.client.addresses import Addresses
from raftcron.client.answers import Answer, error_of
from raftcron.errors import RaftcronError, UnavailableError, UnknownOutcomeError

READS: Final = frozenset({"GET", "HEAD"})

FIRST_PAUSE_SECONDS: Final = 0.05  # between two rounds over all nodes; doubled each time
LONGEST_PAUSE_SECONDS: Final = 2.0
HURRY_SECONDS: Final = 2.0  # until the answer of a read begins, while others have not been asked

NOT_WRITTEN: Final = 503  # certainly: the next node may do better
UNKNOWN: Final = frozenset({502, 504})  # a node says 504; 502 is a proxy whose connection to it may have broken
MISSING: Final = 404
TO_REPEAT: Final = frozenset({409, 429})  # where they say when: the first try is under way, or there are too many


class Request(NamedTuple):
    """What is asked: `target` is path and query; `has_key` says that it carries an idempotency key."""

    method: str
    target: str
    has_key: bool

    @property
    def may_repeat(self) -> bool:
        """Whether twice does no more than once."""
        return self.is_read or self.has_key

    @property
    def is_read(self) -> bool:
        return self.method in READS

    @property
    def removes_member(self) -> bool:
        """Its key is kept only behind it: a repeat may find that nobody is there any more."""
        return self.method == "DELETE" and self.target.startswith("/v1/cluster/members/")


class Try(NamedTuple):
    """Send it there; with `seconds`, until the answer begins, and it is `Late` otherwise."""

    address: str
    seconds: float | None = None


class Wait(NamedTuple):
    """Let so much time pass."""

    seconds: float


class NotSent(NamedTuple):
    """No connection: nothing has left."""

    why: str


class Broken(NamedTuple):
    """The connection broke after it was sent."""

    why: str


class Late(NamedTuple):
    """No answer has begun in the seconds that were given."""


Outcome = Answer | NotSent | Broken | Late
Course = Generator[Try | Wait, Outcome | None, Answer]


def tries(order: Sequence[str], *, is_read: bool) -> list[Try]:
    """Whom to ask, in this order: a read hurries where others may be quicker, since a node may be frozen.

    Whoever is late is to be asked again behind the others, with all the time that there is.
    """
    return [Try(address, HURRY_SECONDS if is_read and len(order) > 1 else None) for address in order]


def course(
    request: Request, addresses: Addresses, leader: str | None, patience_seconds: float, now: Callable[[], float]
) -> Course:
    """Ask until there is an answer that stands; each node once at least, and on for `patience_seconds`.

    Raises the error that the answer stands for; UnavailableError: no node could be reached, or none had a leader, so
    nothing was written; UnknownOutcomeError: it was sent, no answer told what came of it, and repeating it is not safe
    or did not help.
    """
    deadline = now() + patience_seconds
    pause = FIRST_PAUSE_SECONDS
    doubt: UnknownOutcomeError | None = None  # once there is one, no "not written" of another try speaks for all
    while True:
        refusals: list[str] = []
        last: RaftcronError | None = None
        asked_to_wait = 0.0
        steps = tries(addresses.round(leader), is_read=request.is_read)
        for step in steps:  # grows by those who are late
            address = step.address
            outcome = yield step
            assert outcome is not None
            if isinstance(outcome, Late):
                addresses.failed(address)
                steps.append(Try(address))
                continue
            if isinstance(outcome, NotSent):
                addresses.failed(address)
                refusals.append(f"{address}: {outcome.why}")
                continue
            if isinstance(outcome, Broken):
                addresses.failed(address)
                unknown = f"{request.method} {request.target} at {address} broke off: {outcome.why}"
            else:
                addresses.served(address)
                unknown = error_of(outcome).detail if outcome.status in UNKNOWN else ""
            if unknown and request.is_read:
                last = UnavailableError(unknown) if isinstance(outcome, Broken) else error_of(outcome)
                continue
            if unknown:
                doubt = UnknownOutcomeError(f"{unknown}; look, then repeat")
                if not request.may_repeat:
                    raise doubt
                continue
            assert isinstance(outcome, Answer)
            wait = outcome.retry_after_seconds
            if outcome.status == NOT_WRITTEN:
                last = error_of(outcome)
                asked_to_wait = max(asked_to_wait, wait or 0.0)
                continue
            if outcome.status in TO_REPEAT and wait is not None:
                last, asked_to_wait = error_of(outcome), 0.0
                if now() + wait > deadline:
                    raise doubt or last
                yield Wait(wait)
                break
            if outcome.status == MISSING and doubt is not None and request.removes_member:
                return Answer(204, outcome.headers, None)
            if outcome.status >= 300:
                raise error_of(outcome)
            return outcome
        seconds = max(pause, asked_to_wait)
        if now() + seconds > deadline:
            raise (
                doubt
                or last
                or UnavailableError(f"no node can be reached: {'; '.join(refusals)}; is one running there? (--addr)")
            )
        yield Wait(seconds)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
