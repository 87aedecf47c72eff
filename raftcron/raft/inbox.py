"""Who takes which kind of message; one that no peer of this version sends is counted, dropped, and ends nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from raftcron.errors import MalformedError
from raftcron.raft.guard import BadMessageError

logger = logging.getLogger(__name__)

Handler = Callable[[str, Any], None]

OWN_KINDS = frozenset(
    {"raft", "prevote", "prevoted", "round", "echo", "read", "index", "pull", "piece", "doubt", "members"}
)


class Inbox:
    """Messages of all peers, by kind.  What an own handler raises, other than BadMessageError, is the caller's."""

    def __init__(self, name: str, complain: Callable[[str, str], None]) -> None:
        self.own: dict[str, Handler] = {}  # of the log itself, by each of OWN_KINDS
        self.bad_messages: Counter[str] = Counter()  # by peer
        self._name = name
        self._complain = complain
        self._handlers: dict[str, Handler] = {}

    def serve(self, kind: str, handler: Handler) -> None:
        """What `handler` raises, other than MalformedError, is logged, and ends nothing.

        ValueError if somebody takes this kind already.
        """
        if kind in OWN_KINDS or kind in self._handlers:
            raise ValueError(f"messages of kind {kind!r} have a handler already")
        self._handlers[kind] = handler

    def take(self, peer: str, kind: str, message: Any) -> None:
        """A message has come."""
        try:
            if kind in self.own:
                self.own[kind](peer, message)
            elif kind in self._handlers:
                self._hand_out(self._handlers[kind], peer, message)
            else:
                raise BadMessageError(f"kind: {kind!r:.40} is not known")
        except BadMessageError as error:
            self.bad_messages[peer] += 1
            self._complain(f"bad_message_from_{peer}", f"kind={kind!r:.40} dropped: {error}")

    def _hand_out(self, handler: Handler, peer: str, message: Any) -> None:
        try:
            handler(peer, message)
        except MalformedError as error:
            raise BadMessageError(error.detail) from error
        except Exception:
            logger.exception("raft_handler_failed node=%s peer=%s", self._name, peer)
