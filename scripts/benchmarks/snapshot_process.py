"""The state of very many jobs in a process of its own: built by entries and written as blocks, or read back from them.

    snapshot_process.py write PATH RECORDS   builds it, forks, and lets the child write the blocks
    snapshot_process.py read PATH on|off     takes them in twice, the second time in place of the first state;
                                             on or off is Python's collector, set as a node sets it

What it found is one JSON object on standard output.  No log, no peers: those are measured elsewhere.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raftcron.clock import SystemClock
from raftcron.core import definition
from raftcron.core.codec import encode_entry
from raftcron.core.commands import (
    Announce,
    Command,
    Decide,
    Decision,
    Entry,
    Finish,
    Finished,
    Fire,
    Lead,
    Place,
    PutJob,
)
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.machine import Machine

SCHEDULES = 5_000
IN_ENTRY = 500
BEGAN = 1_800_000_000_000
PLACE = Place("n1", 1)
LENGTH_BYTES = 4


# ---- write -----------------------------------------------------------------------------------------------------------


def definition_of(number: int) -> bytes:
    """A job of its own at one of SCHEDULES times of a month."""
    own = number % SCHEDULES
    schedule = f"{own % 60} {own // 60 % 24} {1 + own // 1440} * *"
    executor = {"type": "http", "url": f"http://10.1.2.3:8080/hooks/{number:07}"}
    return definition.canonical({"schedule": schedule, "executor": executor})


def built(records: int) -> Machine:
    """A node that has taken so many jobs and one ended run of each, entry by entry."""
    machine = Machine("n1", TrustedTime(SystemClock()))
    at = BEGAN

    def write(command: Command) -> None:
        nonlocal at
        at += 1
        machine.apply(machine.state.index + 1, encode_entry(Entry(machine.state.epoch, at, command)))

    write(Lead("n1", 1, 1, "0", "0", "0"))
    write(Announce("n1", 1, "n1:1", "n1:2", "0", 2 * IN_ENTRY, 0))
    for number in range(records):
        write(PutJob(f"team-{number % 97:02}/job-{number:07}", definition_of(number), None))
    state, timeline = machine.state, machine.timeline
    due: list[tuple[int, int]] = []
    for job in state.jobs.values():
        group = timeline.group_of(job.uid)
        first = None if group is None else group.next_after(job.decided_through)
        assert first is not None, "each schedule has a time in every month"
        due.append((first, job.uid))
    due.sort()
    for start in range(0, records, IN_ENTRY):
        part = due[start : start + IN_ENTRY]
        at = max(at, part[-1][0])  # decided as they come, so that none is missed or too late to start
        decisions = [Decision(uid, state.by_uid[uid].revision, first, [Fire(first, first)]) for first, uid in part]
        write(Decide(PLACE, decisions))
        tokens = [(run.id, run.fencing_token) for run in state.on_node["n1"].values()]
        write(Finish([Finished(run, token, "succeeded", status_code=200) for run, token in tokens]))
    machine.applied(state.index)
    assert len(state.runs) == records, "each job has fired once"
    assert not state.active, "each run has ended"
    return machine


def write(path: Path, records: int) -> dict[str, Any]:
    """Build, fork, and let the child write."""
    gc.disable()  # a state grows slowly in life, and here for minutes
    began = time.perf_counter()
    machine = built(records)
    build_seconds = time.perf_counter() - began
    gc.freeze()
    found = {"build_seconds": build_seconds, "built_mb": resident_mb()}
    reader, writer = os.pipe()
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(encode(machine, path)).encode())
        os._exit(0)
    found["fork_ms"] = (time.perf_counter() - began) * 1000
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found |= json.loads(pipe.read())
    _, status = os.waitpid(child, 0)
    assert status == 0, "the child has written all of it"
    return found


def encode(machine: Machine, path: Path) -> dict[str, Any]:
    """What a forked child does, less the file's own frames."""
    began = last = time.perf_counter()
    cpu, count, size, gap, largest = time.process_time(), 0, 0, 0.0, 0
    with path.open("wb") as file:
        for block in machine.snapshot():
            now = time.perf_counter()
            gap, last = max(gap, now - last), now
            file.write(len(block).to_bytes(LENGTH_BYTES, "little") + block)
            count, size, largest = count + 1, size + len(block), max(largest, len(block))
    return {
        "encode_seconds": time.perf_counter() - began,
        "encode_cpu_seconds": time.process_time() - cpu,
        "block_gap_ms": gap * 1000,
        "blocks": count,
        "bytes": size,
        "largest_block": largest,
        "child_mb": resident_mb(),
    }


# ---- read ------------------------------------------------------------------------------------------------------------


def blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while head := file.read(LENGTH_BYTES):
            yield file.read(int.from_bytes(head, "little"))


async def read(path: Path, *, collecting: bool) -> dict[str, Any]:
    """Into a machine that has nothing, as at a start; then in place of a state as large, as on a lagging follower."""
    gc.set_threshold(50_000, 50, 100)
    if not collecting:
        gc.disable()
    machine = Machine("n1", TrustedTime(SystemClock()))
    cpu = time.process_time()
    found = take_in(machine, path)
    found["restore_cpu_seconds"] = time.process_time() - cpu
    found["restored_mb"] = resident_mb()
    again = take_in(machine, path)
    found["replace_feed_ms"], found["replace_install_ms"] = again["feed_ms"], again["install_ms"]
    found["collections"] = [generation["collections"] for generation in gc.get_stats()]
    found["release_ms"] = await longest_turn()
    return found


def take_in(machine: Machine, path: Path) -> dict[str, Any]:
    """All blocks, then install; how long that took, and the longest calls."""
    restoring = machine.restoring()
    spans: list[float] = []
    began = time.perf_counter()
    for block in blocks(path):
        fed = time.perf_counter()
        restoring.feed(block)
        spans.append((time.perf_counter() - fed) * 1000)
    fed = time.perf_counter()
    restoring.install()
    now = time.perf_counter()
    return {
        "restore_seconds": now - began,
        "install_ms": (now - fed) * 1000,
        "feed_ms": sorted(spans)[-20:],
        "feed_median_ms": sorted(spans)[len(spans) // 2],
    }


async def longest_turn() -> float:
    """Of the loop's turns, until nothing happens in them any more; milliseconds."""
    longest, idle = 0.0, 0
    while idle < 100:
        began = time.perf_counter()
        await asyncio.sleep(0)
        span = (time.perf_counter() - began) * 1000
        longest = max(longest, span)
        idle = idle + 1 if span < 0.05 else 0
    return longest


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    what, path, given = sys.argv[1:]
    found = (
        write(Path(path), int(given)) if what == "write" else asyncio.run(read(Path(path), collecting=given == "on"))
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
