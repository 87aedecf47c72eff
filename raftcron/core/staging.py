"""What the chunks of a restore say together, read as they come, so that the entry that swaps them in only switches.

Derived from `State.staged` and nothing else: a node that has the chunks from a snapshot reads them when it needs to.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from raftcron.core import archive, definition
from raftcron.core.archive import CalendarRow, GroupRow, JobRow, RouteRow, SecretRow, StagedChunk
from raftcron.core.model import Policy


class Staging:
    """The rows of one staging by name; of jobs also what they mean, and the ids that new ones get."""

    __slots__ = ("_digest", "calendars", "chunks", "count", "groups", "jobs", "name", "policies", "routes", "secrets",
                 "uids")  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.chunks = 0
        self.count = 0  # of the rows; more than there are names where one stands twice
        self.jobs: dict[str, JobRow] = {}
        self.calendars: dict[str, CalendarRow] = {}
        self.groups: dict[str, GroupRow] = {}
        self.secrets: dict[str, SecretRow] = {}
        self.routes: dict[str, RouteRow] = {}
        self.policies: dict[str, Policy] = {}
        self.uids: dict[str, int] = {}
        self._digest = blake2b(digest_size=archive.DIGEST_BYTES)

    @property
    def digest(self) -> bytes:
        """Of the rows of all chunks, in their order."""
        return self._digest.digest()

    @property
    def names(self) -> int:
        """How many rows have a name of their own."""
        return sum(len(getattr(self, kind)) for kind in archive.KINDS)

    def take(self, chunk: StagedChunk) -> None:
        """The next chunk, which the log has taken."""
        found = archive.staged_rows(chunk.kind, chunk.rows)
        self.chunks += 1
        self.count += len(found)
        self._digest.update(len(chunk.rows).to_bytes(8, "little") + chunk.rows)
        by_name: dict[str, Any] = getattr(self, chunk.kind)
        for place, row in enumerate(found):
            by_name[row.name] = row
            if chunk.kind == "jobs":
                self.uids[row.name] = place << 48 | chunk.index
                self.policies[row.name] = definition.policy_of(row.definition)
