"""The course of one request over the nodes of a cluster: whom to ask next, how long to wait, when to give up.

Pure: a generator that says what to do and is told what came of it, so that the synchronous and the asynchronous client
behave alike by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, NamedTuple

from raftcron.client.addresses import Addresses
from raftcron.client.answers import Answer, error_of
from raftcron.errors import RaftcronError, UnavailableError, UnknownOutcomeError

FIRST_PAUSE_SECONDS: Final = 0.05  # between two rounds over all nodes; doubled each time
LONGEST_PAUSE_SECONDS: Final = 2.0

NOT_WRITTEN: Final = frozenset({502, 503})  # certainly nothing was written: the next node may do better
UNKNOWN: Final = 504


class Request(NamedTuple):
    """What is asked: `target` is path and query; `has_key` says that it carries an idempotency key."""

    method: str
    target: str
    has_key: bool

    @property
    def may_repeat(self) -> bool:
        """Whether twice does no more than once; on what changes the members no key is kept."""
        return self.method == "GET" or (self.has_key and not self.target.startswith("/v1/cluster/"))


class Try(NamedTuple):
    """Send it there."""

    address: str


class Wait(NamedTuple):
    """Let so much time pass."""

    seconds: float


class NotSent(NamedTuple):
    """No connection: nothing has left."""

    why: str


class Broken(NamedTuple):
    """The connection broke after it was sent."""

    why: str


Course = Generator[Try | Wait, Answer | NotSent | Broken | None, Answer]


def course(
    request: Request, addresses: Addresses, leader: str | None, patience_seconds: float, now: Callable[[], float]
) -> Course:
    """Ask until there is an answer that stands; each node once at least, and on for `patience_seconds`.

    Raises the error that the answer stands for; UnavailableError: no node could be reached, or none had a leader, so
    nothing was written; UnknownOutcomeError: it was sent, broke off, and repeating it is not safe or did not help.
    """
    deadline = now() + patience_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        refusals: list[str] = []
        last: RaftcronError | None = None
        asked_to_wait = 0.0
        for address in addresses.round(leader):
            outcome = yield Try(address)
            assert outcome is not None
            if isinstance(outcome, NotSent):
                refusals.append(f"{address}: {outcome.why}")
                continue
            if isinstance(outcome, Broken):
                last = UnknownOutcomeError(
                    f"{request.method} {request.target} at {address} broke off: {outcome.why}; look, then repeat"
                )
                if not request.may_repeat:
                    raise last
                continue
            addresses.served(address)
            wait = outcome.retry_after_seconds
            if outcome.status in NOT_WRITTEN or (outcome.status == UNKNOWN and request.may_repeat):
                last = error_of(outcome)
                asked_to_wait = max(asked_to_wait, wait or 0.0)
                continue
            if outcome.status in (409, 429) and wait is not None and now() + wait <= deadline:
                yield Wait(wait)  # the first try of a repeated one is still under way, or there are too many
                last, asked_to_wait = error_of(outcome), 0.0
                break
            if outcome.status >= 300:
                raise error_of(outcome)
            return outcome
        seconds = max(pause, asked_to_wait)
        if now() + seconds > deadline:
            raise last or UnavailableError(
                f"no node can be reached: {'; '.join(refusals)}; is one running there? (--addr)"
            )
        yield Wait(seconds)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
