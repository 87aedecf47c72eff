"""A later release, as far as a simulation can have one: shipped code that writes versions which this release refuses.

What it puts into the log and into snapshots is of the next version; what it reads may be of either.  So a node of this
release must end by name as soon as it would have to apply, fetch or start from anything of the later one, and lose
nothing by that.  Its calendars claim to be of another edition too, so that each change of the leader's release is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from raftcron.core.codec import ENTRY_VERSION
from raftcron.core.image import IMAGE_VERSION
from raftcron.node import Node
from raftcron.ports import Applied

THIS, LATER = 1, 2
EDITIONS = ("a later one", "a later one")


def entry_out(release: int, body: bytes) -> bytes:
    """An entry as this release writes it, as `release` writes it; bytes that are none stay what they are."""
    return _moved(body, ENTRY_VERSION, 1) if release == LATER else body


def entry_in(release: int, body: bytes) -> bytes:
    """An entry from the log as this release reads it, if `release` can read it."""
    return _moved(body, ENTRY_VERSION + 1, -1) if release == LATER else body


def is_later(body: bytes) -> bool:
    """Whether an entry, as a node reads it, is of a version that it must refuse."""
    return body[:1] == bytes([ENTRY_VERSION + 1])


def block_out(release: int, block: bytes) -> bytes:
    """The same of a block of a snapshot,"""
    return _moved(block, IMAGE_VERSION, 1) if release == LATER else block


def block_in(release: int, block: bytes) -> bytes:
    """and back."""
    return _moved(block, IMAGE_VERSION + 1, -1) if release == LATER else block


def _moved(data: bytes, version: int, by: int) -> bytes:
    return bytes([version + by]) + data[1:] if data[:1] == bytes([version]) else data


def make_later(node: Node) -> None:
    """This node's process is of the later release."""
    propose: Callable[[bytes, int], Awaitable[Applied]] = node.log.propose

    async def of_later(body: bytes, epoch: int) -> Applied:
        return await propose(entry_out(LATER, body), epoch)

    node.log.propose = of_later  # type: ignore[method-assign]
    node.machine.editions = EDITIONS
