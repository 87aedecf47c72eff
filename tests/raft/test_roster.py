"""The roster at start: what snapshot and journal say of the members, after an end at any place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raftcron.errors import DamagedError
from raftcron.raft.configuration import Configuration, Seat, encode
from raftcron.raft.journal import Journal
from raftcron.raft.membership import Membership
from raftcron.raft.roster import Roster
from tests.raft.virtual import Disk

HERE = ("127.0.0.1", 1)
CONFIGURATION = Configuration("c1", {"n1": Seat("d1", HERE, is_voter=True), "n2": Seat("d2", HERE, is_voter=True)})


def roster_of(journal: Journal, loop: asyncio.AbstractEventLoop) -> Roster:
    identity = journal.identity
    membership = Membership("n1", {"n1": HERE, "n2": HERE}, identity.disk_id, identity.cluster_id)

    def nothing(*_: Any) -> Any:
        return None

    return Roster(
        "n1",
        membership,
        journal,
        spread=nothing,
        hello_of=nothing,
        is_confirmed=lambda: False,
        kick=nothing,
        draw=bytes,
        complain=nothing,
        send=nothing,
        loop=loop,
    )


@pytest.fixture
def disk() -> Disk:
    """Of a node that has fetched a snapshot, and ended before the journal knew of its cluster."""
    disk = Disk()
    journal = Journal.open(Path("/"), disk)
    journal.begin("n1", "d1")
    journal.setCurrentTerm(3, None)
    journal.align(50, 2)
    return disk


async def test_a_node_that_ended_while_it_installed_knows_its_cluster_from_its_next_start_on(disk: Disk) -> None:
    """Else it would tell its peers for good that it belongs to none, and who is behind would not let it in."""
    journal = Journal.open(Path("/"), disk.crashed())
    journal.align(50, 2)
    assert journal.identity.cluster_id is None
    roster_of(journal, asyncio.get_running_loop()).recall((50, encode(CONFIGURATION)), "/")
    assert journal.identity.cluster_id == "c1"


async def test_a_log_that_says_nothing_of_its_members_is_refused(disk: Disk) -> None:
    """It belongs to a cluster, so somebody has taken something away; the message names the command."""
    journal = Journal.open(Path("/"), disk.crashed())
    journal.set_cluster_id("c1")
    with pytest.raises(DamagedError, match=r"neither log nor snapshot.*raftcron cluster replace n1 --data-dir /data"):
        roster_of(journal, asyncio.get_running_loop()).recall(None, "/data")
