"""The audit trail: one item for each write that took effect, chained by hashes, and how a chain is checked.

An item's hash is the SHA-256 of the JSON array [hash before, index, at, principal, node, remote, method, path, summary]
(no spaces, UTF-8, `at` in milliseconds).  The chain's record holds how many items there ever were, the newest hash, and
the hash before the oldest that is kept: so a tail that is gone shows, and dropping the oldest by the bound does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct

from raftcron.core import commands as c

AUDIT_KEPT = 20_000  # items, about 500 bytes each
TEXT_MAX = 200  # characters of a path or a summary
UNRECORDED: Final = (c.Hear,)  # signs of life of runs: they say nothing, and would push out what does
BEGINNING: Final = bytes(32)  # the hash before the first item
CHAIN: Final = "audit"

_encode = msgspec.json.Encoder().encode


class AuditItem(Struct, array_like=True, gc=False):
    """A write that took effect: who asked which node for what, and from where."""

    index: int
    at: int
    principal: str
    node: str
    remote: str
    method: str
    path: str
    summary: str
    hash: bytes
    digest: int = 0


class AuditChain(Struct, array_like=True, gc=False):
    """How far the chain has come."""

    name: str
    count: int = 0  # items there ever were
    head: bytes = BEGINNING  # the newest one's hash
    dropped: int = 0  # items that have left
    before: bytes = BEGINNING  # the hash before the oldest that is kept
    digest: int = 0


def link(before: bytes, item: AuditItem) -> bytes:
    """The hash of an item that follows the one with the hash `before`."""
    said = (item.index, item.at, item.principal, item.node, item.remote, item.method, item.path, item.summary)
    return sha256(_encode([before.hex(), *said])).digest()


def faults(items: Sequence[AuditItem], chain: AuditChain) -> list[str]:
    """What contradicts itself in a chain with all items that are kept of it, oldest first; empty: it is whole."""
    found = []
    before, last = chain.before, 0
    for item in items:
        if item.index <= last:
            found.append(f"index {item.index} stands behind index {last}")
        last = item.index
        if link(before, item) != item.hash:
            found.append(f"index {item.index} ({item.method} {item.path}) is not what was chained here")
        before = item.hash
    if before != chain.head:
        found.append(f"the items end with {before.hex()[:16]}, and the chain with {chain.head.hex()[:16]}")
    if chain.dropped + len(items) != chain.count:
        found.append(
            f"there are {len(items)} items after {chain.dropped} that were dropped, and the chain counts {chain.count}"
        )
    return found


# ---- words ---------------------------------------------------------------------------------------------------------

SAID: Final[dict[type, str]] = {
    c.PutJob: "job {} written",
    c.DeleteJob: "job {} deleted",
    c.PauseJob: "job {} paused",
    c.ResumeJob: "job {} resumed",
    c.Trigger: "run {} asked for by hand",  # it may wait, or be skipped
    c.Cancel: "run {} cancelled",
    c.Rerun: "run {} asked for by hand",
    c.Backfill: "backfilled up to run {}",
    c.Conclude: "run {} ended by its target",
    c.PutGroup: "group {} written",
    c.DeleteGroup: "group {} deleted",
    c.ApplyJobs: "{}, in one piece",
    c.Drain: "node {} drained: it gets no new runs",
    c.PutCalendar: "calendar {} written",
    c.DeleteCalendar: "calendar {} deleted",
    c.SkipNext: "job {}: times to skip set",
    c.CreateToken: "token {} created",
    c.DeleteToken: "token {} revoked",
    c.PutSecret: "secret {} written",
    c.DeleteSecret: "secret {} deleted",
    c.PutAlertRoute: "alert route {} written",
    c.DeleteAlertRoute: "alert route {} deleted",
    c.Note: "{}",
    c.Restore: "restored from a backup: {}",
    c.Requeue: "the leader's time accepted",  # nobody asks for one otherwise
}
_UNDRAINED = "node {} drained no more: it gets new runs again"
_MADE = (c.PutJob, c.PutCalendar, c.PutGroup, c.PutSecret, c.PutAlertRoute)


def summary_of(command: c.Command, done: c.Done) -> str:
    """What a command did, in a few words; never a value that was written.

    It is replicated: it follows from the command and its outcome alone, and says no more than these do.
    """
    said = SAID.get(type(command), f"{type(command).__name__} {{}}")
    if isinstance(command, c.Drain) and not command.drained:
        said = _UNDRAINED
    if isinstance(command, _MADE) and done.status == 201:
        said = said.replace(" written", " created")
    return clean(said.format(_counted(command, done) if isinstance(command, c.ApplyJobs) else done.subject))


def _counted(command: c.ApplyJobs, done: c.Done) -> str:
    """How many jobs met what; whether one that was there is another now, the outcome does not tell."""
    created = done.statuses.count(201)
    counts = {
        "created": created,
        "replaced or unchanged": len(command.puts) - created,
        "deleted": len(command.deletes),
    }
    return "jobs: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def clean(text: str) -> str:
    """Text in one line of bounded length, without characters that a terminal or a log would obey."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:TEXT_MAX])
    return shown.encode("utf-8", "replace").decode()
