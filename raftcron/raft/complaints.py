"""What is wrong with others, said once: nobody fills this node's log."""

from __future__ import annotations

import logging

from raftcron.clock import Clock

logger = logging.getLogger(__name__)

_MAX_SAID = 1024  # complaints that are remembered
_MAX_LINES = 100  # in one window, whoever they are about: a cause may hold what a stranger chose
_MAX_WORDINGS = 10  # of one trouble in one window, likewise
_WINDOW_SECONDS = 600.0


class Complaints:
    """Warnings about others, each (who, cause) once until `forget`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[tuple[str, str], None] = {}
        self._began_at = clock.monotonic()
        self._lines = 0
        self._left_out = 0

    def say(self, who: str, cause: str, text: str, *values: object) -> None:
        """Log `text`, unless this cause was told of `who` before, or too much has been said of late."""
        if (who, cause) in self._said:
            return
        now = self._clock.monotonic()
        if now - self._began_at >= _WINDOW_SECONDS:
            if self._left_out:
                logger.warning("peer_complaints_left_out count=%d", self._left_out)
            self._began_at, self._lines, self._left_out = now, 0, 0
        if self._lines >= _MAX_LINES:
            self._left_out += 1
            return
        self._lines += 1
        if len(self._said) >= _MAX_SAID:
            self._said.pop(next(iter(self._said)))
        self._said[who, cause] = None
        logger.warning(text, *values)

    def forget(self, who: str) -> None:
        """All is well with somebody: what goes wrong next is news."""
        for key in [key for key in self._said if key[0] == who]:
            del self._said[key]


class Troubles:
    """Warnings about what goes on, as long as it lasts: each wording once in ten minutes, and of each trouble a few."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._said: dict[str, tuple[float, set[str]]] = {}  # since when, by what they are about: a few, one a member
        self._silent_until: dict[str, float] = {}  # likewise

    def say(self, about: str, text: str) -> None:
        now = self._clock.monotonic()
        if now < self._silent_until.get(about, now):
            return
        began_at, wordings = self._said.get(about, (now, set()))
        if now - began_at >= _WINDOW_SECONDS:
            began_at, wordings = now, set()
        if text not in wordings and len(wordings) < _MAX_WORDINGS:
            self._said[about] = began_at, wordings | {text}
            logger.warning("raft_%s node=%s %s", about, self._name, text)

    def put_off(self, about: str, seconds: float) -> None:
        """Say nothing about it for so long: it may pass."""
        self._silent_until[about] = self._clock.monotonic() + seconds
