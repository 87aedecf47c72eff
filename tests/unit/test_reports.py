"""What workers tell the leader: however much there is of it, each entry of the log is one that the log takes."""

from __future__ import annotations

import asyncio

import pytest

from raftcron.clock import SystemClock
from raftcron.core.codec import decode_entry
from raftcron.core.commands import Finish, Finished
from raftcron.raft.settings import RaftSettings
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.reports import REPORTS_PER_ENTRY, Reports
from raftcron.runtime.worker import ERROR_CHARACTERS, TAIL_BYTES
from raftcron.testing.memory_log import MemoryCluster
from raftcron.testing.wall_time import WallTime

LIMIT = RaftSettings.__dataclass_fields__["max_command_bytes"].default


@pytest.mark.parametrize("tail", [b"", b"x" * TAIL_BYTES], ids=["no tail", "tail"])
@pytest.mark.parametrize("character", ["", "a", "ж", "中", "🕰"])
async def test_endings_of_any_length_fit_into_the_log(character: str, tail: bytes) -> None:
    """More endings than an entry takes, all with the longest error, come in order in entries within the log's bound."""
    time = WallTime(SystemClock())
    machine = Machine("n1", time)
    cluster = MemoryCluster()
    log = cluster.join("n1", machine)
    reports = Reports(node="n1", machine=machine, log=log, proposer=Proposer(log, machine, time))
    cluster.elect("n1")
    count = REPORTS_PER_ENTRY + 1
    for token in range(1, count + 1):
        error = character * ERROR_CHARACTERS
        reports.ended(Finished(f"run-{token}", token, "failed", error=error, error_kind="executor", output_tail=tail))
    async with asyncio.timeout(30):
        while reports.open_count:
            await asyncio.sleep(0)
    commands = [decode_entry(body).command for body in cluster.entries]
    endings = [
        finished.fencing_token for command in commands if isinstance(command, Finish) for finished in command.finished
    ]
    assert max(map(len, cluster.entries)) <= LIMIT
    assert endings == list(range(1, count + 1))
