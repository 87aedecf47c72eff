"""What stands in the place of what spawner and owner decide while a rule of theirs is switched off (protocol.py)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from raftcron.executors import remnants, runfiles
from raftcron.executors.custody import Custody
from raftcron.executors.frames import Frames
from raftcron.executors.host import LINUX, Host
from raftcron.executors.processes import Process
from raftcron.executors.spawner import SpawnResult
from raftcron.testing import sim_processes
from tests.simulation.switch import Replacement

HELD_SECONDS = 9.0


def never(_self: Any, _child: Any) -> float:
    """Custody.lease_stop_at, but the end of a lease stops nothing."""
    return math.inf


def when_asked(_self: Any, child: Any) -> float:
    """Custody.kill_at, but the end of a lease kills nothing."""
    return math.inf if child.kill_at is None else float(child.kill_at)


KILLS_NOTHING: list[Replacement] = [(Custody, "lease_stop_at", never), (Custody, "kill_at", when_asked)]


def refused_never(self: Any, request: Any) -> str | None:
    """Custody.refusal, but a licence that has ended will do."""
    return "this start was asked for before" if request["id"] in self.by_id else None


def refused_by_what_is_held(self: Any, request: Any) -> str | None:
    """Custody.refusal, but the newest licence counts, not the one that the start was checked under."""
    return "the licence of this node has ended" if self.hands.now() >= self.deadline else None


def write_the_first_start_late(self: Any, data: bytes) -> None:
    """A node's end of the pipe: between gate and pipe of the first start the node does other things."""
    message = Frames().feed(data)[0]
    if message["do"] == "exec" and message["id"] == "1":
        self._loop.call_later(HELD_SECONDS, _write, self, data)
    else:
        _write(self, data)


def outlives_its_daemon(_self: Any) -> float:
    """Custody.clear, but nothing is killed."""
    return 1.0


async def clean_up_but_children(run_directory: Path, keep_ended: bool = False, host: Host = LINUX) -> list[Any]:
    """remnants.clean_up, but what the old spawner has started is left alone."""
    del keep_ended
    for record in host.files.read(runfiles.spawner_path(str(run_directory))):
        host.processes.kill_exactly(Process(record["pid"], "S", 0, 0, 0, record["start"]))
    return []


async def clean_up_but_spawner(run_directory: Path, keep_ended: bool = False, host: Host = LINUX) -> list[Any]:
    """remnants.clean_up, but the old spawner is left alone."""
    host.files.remove(runfiles.spawner_path(str(run_directory)))
    return await _clean_up(run_directory, keep_ended, host)


async def lost_at_once(self: Any) -> None:
    """Spawner._account_for_lost, but nobody looks whether anything still runs."""
    for request_id in list(self._pending):
        self._resolve(request_id, SpawnResult("lost", error="the spawner died"))


_write, _clean_up = sim_processes._Link.write, remnants.clean_up
