"""Naming and killing exactly one process."""

from __future__ import annotations

import asyncio
import os

from raftcron.executors import processes


async def test_only_the_process_that_was_named_is_killed() -> None:
    """A pid that belongs to another process by now is left alone."""
    child = await asyncio.create_subprocess_exec("sleep", "300")
    found = processes.look(child.pid)
    assert found is not None
    processes.kill_exactly(found._replace(start=found.start + 1))
    assert processes.is_alive(found.pid, found.start)
    assert not processes.is_alive(found.pid, found.start + 1)
    processes.kill_exactly(found)
    assert await child.wait() == -9
    assert not processes.is_alive(found.pid, found.start)
    processes.kill_exactly(found)  # gone: nothing happens


async def test_a_name_with_brackets_and_spaces_is_read_right() -> None:
    """The command's name stands in the middle of the line and may hold anything."""
    code = (
        "import ctypes,time; ctypes.CDLL(None).prctl(15, b') Z 1 (x', 0, 0, 0); print(1, flush=True); time.sleep(300)"
    )
    child = await asyncio.create_subprocess_exec("python3", "-c", code, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    found = processes.look(child.pid)
    assert found is not None
    assert (found.parent, found.is_dead) == (os.getpid(), False)
    child.kill()
    await child.communicate()


def test_descendants_are_those_below_the_roots() -> None:
    """Parents before children, roots left out, loops harmless."""
    tree = {1: 0, 2: 1, 3: 2, 4: 1, 5: 3, 6: 6}
    found = {pid: processes.Process(pid, "S", parent, pid, pid, 0) for pid, parent in tree.items()}
    assert sorted(one.pid for one in processes.descendants(found, [2, 6])) == [3, 5]
    assert sorted(one.pid for one in processes.descendants(found, [1])) == [2, 3, 4, 5]
