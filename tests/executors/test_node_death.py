"""Children never outlive their node, whoever of the node's processes dies or stops, and however they hide."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from raftcron.core.commands import Finished
from raftcron.executors import cgroups, processes
from raftcron.executors.remnants import Remnant, clean_up, seen_end
from tests.executors.doubles import eventually, with_marker
from tests.patience import quickest


class Node(NamedTuple):
    daemon: asyncio.subprocess.Process
    spawner_pid: int
    run_directory: Path


NO_CGROUP = not cgroups.is_possible()
StartNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def start_node(tmp_path: Path) -> AsyncIterator[StartNode]:
    """Starts a daemon process that runs one command."""
    nodes: list[Node] = []

    async def start(command: str, licence_seconds: float = 60.0, timeout_seconds: float = 600.0) -> Node:
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parent / "tiny_daemon.py"),
            str(tmp_path / str(len(nodes))),
            str(licence_seconds),
            str(timeout_seconds),
            command,
            stdout=subprocess.PIPE,
        )
        assert daemon.stdout is not None
        nodes.append(Node(daemon, int(await daemon.stdout.readline()), tmp_path / str(len(nodes)) / "run"))
        return nodes[-1]

    yield start
    for node in nodes:
        with contextlib.suppress(ProcessLookupError):
            node.daemon.kill()
        await node.daemon.communicate()


def is_gone(pid: int) -> bool:
    """Also true of a zombie: not every init reaps at once."""
    found = processes.look(pid)
    return found is None or found.is_dead


def hiding(marker: str) -> str:
    """A shell, its child, one in a session of its own that ignores SIGTERM, and one that double-forked as well."""
    deaf = f"trap '' TERM HUP; sleep 300; : {marker}"
    return f'setsid sh -c "{deaf}" & (setsid sh -c "{deaf}" &) ; sh -c "sleep 300; : {marker}"; : {marker}'


@pytest.mark.parametrize("command", ["sleep 300; : {}", "hide"])
async def test_children_die_with_a_killed_daemon(start_node: StartNode, command: str) -> None:
    """kill -9 of the daemon: within a second nothing is left, and the spawner has ended, too."""

    async def death() -> float:
        marker = uuid.uuid4().hex
        node = await start_node(hiding(marker) if command == "hide" else command.format(marker), 60.0)
        await eventually(lambda: len(with_marker(marker)) >= (5 if command == "hide" else 2))  # with the daemon
        node.daemon.kill()
        killed = time.monotonic()
        await node.daemon.wait()
        await eventually(lambda: not with_marker(marker))
        await eventually(lambda: is_gone(node.spawner_pid))
        return time.monotonic() - killed

    assert await quickest(death, 1.0) < 1.0


async def test_the_next_life_learns_how_it_ended(start_node: StartNode) -> None:
    """The spawner wrote down that it killed the child, since the daemon was gone."""
    node = await start_node("sleep 300", 60.0)
    file = node.run_directory / "9.child"
    await eventually(file.exists)
    node.daemon.kill()
    await node.daemon.wait()
    await eventually(lambda: len(file.read_text().splitlines()) == 2)
    assert await clean_up(node.run_directory) == [Remnant("9", "run-9", 9, False, -9, "daemon")]
    assert list(node.run_directory.iterdir()) == []


async def test_the_next_life_learns_that_it_timed_out(start_node: StartNode) -> None:
    """The daemon stood still when its spawner ended the command in time, and died before it could tell."""
    node = await start_node("sleep 300", 60.0, 0.5)
    file = node.run_directory / "9.child"
    await eventually(file.exists)
    node.daemon.send_signal(signal.SIGSTOP)
    await eventually(lambda: len(file.read_text().splitlines()) == 2)
    node.daemon.kill()
    await node.daemon.wait()
    [remnant] = await clean_up(node.run_directory)
    assert seen_end(remnant) == Finished(
        run="run-9",
        fencing_token=9,
        state="timed_out",
        exit_code=128 + signal.SIGTERM,
        error="it timed out before its node ended; the output is gone",
        error_kind="timeout",
    )


@pytest.mark.parametrize(
    ("exit_code", "reason", "state"),
    [
        (0, None, "succeeded"),
        (3, None, "failed"),
        (-9, "timeout", "timed_out"),
        (0, "timeout", "timed_out"),
        (-15, "cancelled", "cancelled"),
        (-9, "lease", None),
        (-15, "shutdown", None),
        (-9, "daemon", None),
        (None, None, None),
    ],
)
def test_what_a_seen_end_is(exit_code: int | None, reason: str | None, state: str | None) -> None:
    """As in a report of a daemon that lives; what was ended for the node's sake, or unseen, the cluster calls lost."""
    end = seen_end(Remnant("9", "run-9", 9, False, exit_code, reason))
    assert state == (None if end is None else end.state)


async def test_a_stopped_daemon_cannot_keep_a_child_alive(start_node: StartNode) -> None:
    """SIGSTOP of the daemon: the spawner kills at the deadline by itself; the daemon hears of it when it wakes."""
    for seconds in (1.0, 4.0, 16.0):  # a slow machine has not begun within the first
        marker = uuid.uuid4().hex
        node = await start_node(f"trap '' TERM; sleep 300; : {marker}", seconds)
        assert node.daemon.stdout is not None
        told = asyncio.create_task(node.daemon.stdout.readline())
        await eventually(lambda marker=marker, told=told: len(with_marker(marker)) >= 2 or told.done())
        if not told.done():
            break
    node.daemon.send_signal(signal.SIGSTOP)
    await eventually(lambda: with_marker(marker) == [node.daemon.pid])
    node.daemon.send_signal(signal.SIGCONT)
    assert await told == b"exited -9 lease\n"


async def test_clean_up_after_daemon_and_spawner_were_killed(start_node: StartNode) -> None:
    """Both die at once: what hid from the kernel's own kill is found by its session and its mark, and told."""
    marker = uuid.uuid4().hex
    node = await start_node(hiding(marker), 60.0)
    await eventually(lambda: len(with_marker(marker)) >= 5)
    os.kill(node.spawner_pid, signal.SIGKILL)
    node.daemon.kill()
    await node.daemon.wait()
    assert [one.request_id for one in await clean_up(node.run_directory)] == ["9"]
    assert with_marker(marker) == []


@pytest.mark.skipif(NO_CGROUP, reason="this system gives this process no control group of its own")
async def test_clean_up_finds_what_hides_from_everybody(start_node: StartNode) -> None:
    """Both die at once, and what is left has another session, another parent and nothing in its environment."""
    marker = uuid.uuid4().hex
    node = await start_node(f"(setsid env -i sh -c 'sleep 300; : {marker}' &); sleep 300", 60.0)
    await eventually(lambda: len(with_marker(marker)) >= 2)  # the daemon is one of them
    os.kill(node.spawner_pid, signal.SIGKILL)
    node.daemon.kill()
    await node.daemon.wait()
    await clean_up(node.run_directory)
    assert with_marker(marker) == []


@pytest.mark.skipif(NO_CGROUP, reason="this system gives this process no control group of its own")
async def test_clean_up_finds_what_never_stands_still(start_node: StartNode, tmp_path: Path) -> None:
    """Both die at once, and what is left forks into new sessions all the time: its control group ends them."""
    file = tmp_path / "moved"
    node = await start_node(f"{sys.executable} -S {Path(__file__).parent / 'attacks.py'} comets {file} 4; :", 60.0)
    await eventually(file.exists)
    await asyncio.sleep(0.2)  # they are on their way
    os.kill(node.spawner_pid, signal.SIGKILL)
    node.daemon.kill()
    await node.daemon.wait()
    await clean_up(node.run_directory)
    last = file.stat().st_mtime_ns
    await asyncio.sleep(0.2)
    assert file.stat().st_mtime_ns == last


async def test_clean_up_kills_an_old_spawner_that_is_stopped(start_node: StartNode) -> None:
    """A spawner that never sees the end of its daemon is killed with all it runs, before anything new begins."""
    marker = uuid.uuid4().hex
    node = await start_node(hiding(marker), 60.0)
    await eventually(lambda: len(with_marker(marker)) >= 5)
    os.kill(node.spawner_pid, signal.SIGSTOP)
    node.daemon.kill()
    await node.daemon.wait()
    assert await clean_up(node.run_directory) == [Remnant("9", "run-9", 9, True, None, None)]
    assert with_marker(marker) == []
    assert is_gone(node.spawner_pid)


@pytest.mark.parametrize("wrong", ["start", "boot"])
async def test_clean_up_touches_nobody_else(tmp_path: Path, wrong: str) -> None:
    """A pid that is used again, or was written before a reboot, names nobody."""
    bystander = await asyncio.create_subprocess_exec("sleep", "300")
    found = processes.look(bystander.pid)
    assert found is not None
    record = {"pid": found.pid, "start": found.start, "boot": processes.boot_id(), "run_id": "r", "token": 1}
    record[wrong] = found.start - 1 if wrong == "start" else "another boot"
    (tmp_path / "1.child").write_text(json.dumps(record) + "\n")
    (tmp_path / "spawner").write_text(json.dumps(record) + "\n")
    assert await clean_up(tmp_path) == [Remnant("1", "r", 1, False, None, None)]
    assert bystander.returncode is None
    assert processes.is_alive(found.pid, found.start)
    bystander.kill()
    await bystander.wait()


async def test_clean_up_of_damaged_or_missing_files_goes_on(tmp_path: Path) -> None:
    """A file that says nothing names an attempt that may have run; a directory that is not there names nobody."""
    (tmp_path / "1.child").write_text('{"pid": 1, "sta')
    (tmp_path / "2.child").write_text('{"pid": "x"}\n')
    (tmp_path / "3.child").symlink_to("1.child")  # which nobody follows
    (tmp_path / "notes.txt").write_text("mine")
    assert await clean_up(tmp_path) == [Remnant(name, "", 0, False, None, None) for name in "123"]
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert await clean_up(tmp_path / "nowhere") == []


@pytest.mark.parametrize("unseen", ["directory", "spawner"])
async def test_what_cannot_be_seen_is_not_taken_for_nothing(tmp_path: Path, unseen: str) -> None:
    """Neither a directory that cannot be listed nor a spawner's file that cannot be read: a node must not go on."""
    run_directory = tmp_path / "run"
    if unseen == "directory":
        run_directory.write_text("no directory")
    else:
        run_directory.mkdir()
        (run_directory / "spawner").symlink_to("elsewhere")  # which nobody follows
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        await clean_up(run_directory)


async def test_a_file_that_cannot_be_removed_costs_no_knowledge(tmp_path: Path) -> None:
    """What the others and it have named is told all the same."""
    record = {"pid": 1, "start": 1, "boot": "another boot", "run_id": "r", "token": 1}
    (tmp_path / "1.child").write_text(json.dumps(record) + "\n")
    (tmp_path / "2.child").mkdir()
    assert [one.request_id for one in await clean_up(tmp_path)] == ["1", "2"]
    assert [path.name for path in tmp_path.iterdir()] == ["2.child"]
