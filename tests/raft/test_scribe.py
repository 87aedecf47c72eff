"""Who writes snapshots: the node goes on meanwhile, a child holds nothing of its parent's, any death is harmless."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftcron.raft.device import SystemDevice
from raftcron.raft.scribe import NICENESS, ForkedScribe, Scribe, SlicedScribe, for_this_system
from raftcron.raft.snapshot import SnapshotInfo, SnapshotStore
from raftcron.testing.virtual_time import VirtualLoop, run_virtual

BLOCKS = [bytes([number]) * 70_000 for number in range(20)]


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until the condition gives something true, and give that."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.002)
        return found


class Gate:
    """Where a child waits, between its blocks, until somebody lets it on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def blocks(self) -> Iterator[bytes]:
        yield from BLOCKS[:10]
        self.wait()
        yield from BLOCKS[10:]

    def wait(self) -> None:
        with self.path.open("rb") as gate:
            gate.read()

    def reached(self) -> int | None:
        """A descriptor whose close lets the child on; None while no child waits there."""
        with contextlib.suppress(OSError):
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return None


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore.open(tmp_path / "snapshots", SystemDevice(), "n1")


def hold(store: SnapshotStore, index: int = 5) -> SnapshotInfo:
    """A good snapshot, as something to lose."""
    writing = store.begin(index, 1, "cluster-1", b"members")
    writing.add(b"good")
    return writing.finish()


def again(store: SnapshotStore) -> SnapshotStore:
    """As the next life of the node finds it."""
    return SnapshotStore.open(store.directory, SystemDevice(), "n1")


def files(store: SnapshotStore) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir())


def write(scribe: Scribe, store: SnapshotStore, blocks: Callable[[], Iterator[bytes]]) -> asyncio.Task[SnapshotInfo]:
    return asyncio.create_task(scribe.write(store, 9, 2, "cluster-1", b"members", blocks))


def ended(process: int) -> Callable[[], bool]:
    """Whether a process, which need not be a child of ours, has ended."""
    handle = os.pidfd_open(process)

    def look() -> bool:
        readable, _, _ = select.select([handle], [], [], 0)
        if readable:
            os.close(handle)
        return bool(readable)

    return look


@pytest.mark.parametrize("scribe", [ForkedScribe(), SlicedScribe()], ids=["forked", "sliced"])
async def test_the_snapshot_is_the_one_that_the_store_would_make(scribe: Scribe, tmp_path: Path) -> None:
    """Same bytes, same id; the store knows it at once, and after a restart; the next one can be written."""
    store, other = (SnapshotStore.open(tmp_path / name, SystemDevice(), "n1") for name in ("a", "b"))
    for index in (9, 10, 11):
        writing = other.begin(index, 2, "cluster-1", b"members")
        for block in BLOCKS:
            writing.add(block)
        info = await scribe.write(store, index, 2, "cluster-1", b"members", lambda: iter(BLOCKS))
        assert info == writing.finish()
        assert store.newest == again(store).newest == info
        assert list(store.blocks(info)) == BLOCKS
    assert files(store) == files(other)
    assert len(files(store)) == 2


async def test_a_child_writes_the_state_of_the_fork_while_the_loop_goes_on(store: SnapshotStore, gate: Gate) -> None:
    """What changes after that instant is not in it; the parent's loop has its turns before the child is done."""
    state = [b"before", b"before"]

    def blocks() -> Iterator[bytes]:
        yield state[0]
        gate.wait()
        yield state[1]

    task = write(ForkedScribe(), store, blocks)
    descriptor = await until(gate.reached)
    state[1] = b"after"
    assert not task.done()
    os.close(descriptor)
    assert list(store.blocks(await task)) == [b"before", b"before"]


async def test_slices_write_the_state_of_the_first_turn(store: SnapshotStore) -> None:
    """All blocks are taken at once; then the loop has a turn between each two."""
    state = [b"before"] * 50
    turns = 0

    async def change() -> None:
        nonlocal turns
        while True:
            turns += 1
            state[:] = [b"after"] * 50
            await asyncio.sleep(0)

    task = write(SlicedScribe(), store, lambda: iter(state))
    changing = asyncio.create_task(change())
    assert list(store.blocks(await task)) == [b"before"] * 50
    assert turns >= 50
    changing.cancel()


def test_slices_need_no_real_time(store: SnapshotStore) -> None:
    """They run on virtual time too."""
    info = run_virtual(SlicedScribe().write(store, 9, 2, "c", b"", lambda: iter(BLOCKS)), VirtualLoop())
    assert store.newest == info


def test_this_system_forks() -> None:
    """Linux does; elsewhere the loop writes."""
    assert isinstance(for_this_system(), ForkedScribe)


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def _broken() -> Iterator[bytes]:
    yield BLOCKS[0]
    raise OSError(errno.ENOSPC, "no space left, says the test")


@pytest.mark.parametrize("scribe", [ForkedScribe(), SlicedScribe()], ids=["forked", "sliced"])
async def test_what_cannot_be_written_leaves_nothing(scribe: Scribe, store: SnapshotStore) -> None:
    """The error comes to the caller with its number; the last good one stays, and the next one can be written."""
    good = hold(store)
    with pytest.raises(OSError, match="says the test") as caught:
        await write(scribe, store, _broken)
    assert caught.value.errno == errno.ENOSPC
    assert store.newest == again(store).newest == good
    assert files(store) == [f"{good.id}.snapshot"]
    assert await write(scribe, store, lambda: iter(BLOCKS)) == store.newest != good


async def test_a_defect_in_a_child_is_named(store: SnapshotStore) -> None:
    """Whatever its encoding raises; the node lives on."""

    def blocks() -> Iterator[bytes]:
        yield BLOCKS[0]
        raise RuntimeError("a defect")

    with pytest.raises(OSError, match="RuntimeError: a defect"):
        await write(ForkedScribe(), store, blocks)
    assert files(store) == []


async def test_a_snapshot_leaves_room_for_the_journal(store: SnapshotStore) -> None:
    """The disk is not filled to its end, since a full one ends the node."""
    good = hold(store)
    free = store.device.free_bytes(store.directory)
    scarce = SnapshotStore.open(store.directory, SystemDevice(), "n1", reserve_bytes=free + (1 << 30))
    with pytest.raises(OSError, match="for the journal") as caught:
        await write(ForkedScribe(), scarce, lambda: iter(BLOCKS))
    assert caught.value.errno == errno.ENOSPC
    assert files(store) == [f"{good.id}.snapshot"]


async def test_a_child_that_does_not_end_is_ended(store: SnapshotStore, gate: Gate) -> None:
    """A hung disk must not stop compaction for ever."""
    scribe = ForkedScribe(deadline_seconds=0.2)
    with pytest.raises(OSError, match=r"had not ended after 0\.2 s"):
        await write(scribe, store, gate.blocks)
    await until(lambda: scribe.pid is None)
    assert files(store) == []
    assert store.newest is None


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_child_ends_with_its_task_and_with_its_scribe(how: str, store: SnapshotStore, gate: Gate) -> None:
    """A cancelled task leaves no process behind, nor does a stop; a stopped scribe writes nothing more."""
    scribe = ForkedScribe()
    task = write(scribe, store, gate.blocks)
    descriptor = await until(gate.reached)
    assert scribe.pid is not None
    is_over = ended(scribe.pid)
    if how == "cancel":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        scribe.stop()
        with pytest.raises(OSError, match="SIGKILL"):
            await task
    await until(is_over)
    os.close(descriptor)
    await until(lambda: scribe.pid is None)
    assert files(store) == []
    if how == "cancel":
        assert await write(scribe, store, lambda: iter(BLOCKS)) == store.newest
    else:
        with pytest.raises(OSError, match="this node ends"):
            await write(scribe, store, lambda: iter(BLOCKS))


async def test_slices_end_with_their_scribe(store: SnapshotStore) -> None:
    """In the middle; what is unfinished goes."""
    scribe = SlicedScribe()
    task = write(scribe, store, lambda: iter(BLOCKS))
    while not files(store):
        await asyncio.sleep(0)
    assert not task.done()
    scribe.stop()
    with pytest.raises(OSError, match="this node ends"):
        await task
    assert files(store) == []


async def test_one_child_at_a_time(store: SnapshotStore, gate: Gate) -> None:
    """Two would take each other's file."""
    scribe = ForkedScribe()
    task = write(scribe, store, gate.blocks)
    descriptor = await until(gate.reached)
    with pytest.raises(OSError, match=f"process {scribe.pid}"):
        await write(scribe, store, lambda: iter(BLOCKS))
    os.close(descriptor)
    assert await task == store.newest


# ---- a child is a process of its own -------------------------------------------------------------------------------


async def test_a_child_holds_nothing_of_its_parents(store: SnapshotStore, gate: Gate, tmp_path: Path) -> None:
    """No socket, no file, no pipe but the one it reports on; no signal handler; and it makes way for the parent."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        held.enter_context(socket.create_connection(listener.getsockname()))
        held.enter_context((tmp_path / "journal").open("w"))
        scribe = ForkedScribe()
        task = write(scribe, store, gate.blocks)
        descriptor = await until(gate.reached)
        process = Path(f"/proc/{scribe.pid}")
        links = {int(link.name): str(link.readlink()) for link in (process / "fd").iterdir()}
        del links[2]  # its last words
        pipes = [number for number, link in links.items() if link.startswith("pipe:")]
        others = {link for number, link in links.items() if number not in pipes} | {str(gate.path)}
        assert len(pipes) == 1
        assert others == {"/dev/null", str(gate.path), str(store.directory / "9-2.writing")}
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert int(status["SigCgt"], 16) & ~(0b11 << 31) == 0  # 32 and 33 are the C library's own
        assert int(status["SigBlk"], 16) == 0
        assert os.getpriority(os.PRIO_PROCESS, scribe.pid or 0) == min(
            os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19
        )
        assert (process / "oom_score_adj").read_text().strip() == "1000"
        os.close(descriptor)
        await task


async def test_a_signal_to_a_child_is_not_its_parents(store: SnapshotStore, gate: Gate) -> None:
    """They would share what wakes the parent's loop."""
    came: list[int] = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, came.append, signal.SIGTERM)
    scribe = ForkedScribe()
    task = write(scribe, store, gate.blocks)
    descriptor = await until(gate.reached)
    os.kill(scribe.pid or 0, signal.SIGTERM)
    with pytest.raises(OSError, match="SIGTERM"):
        await task
    os.close(descriptor)
    await asyncio.sleep(0)
    assert came == []
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: came)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    assert files(store) == []


async def test_nothing_is_left_open_and_nobody_unreaped(store: SnapshotStore) -> None:
    """However it ended."""

    def look() -> tuple[int, set[str]]:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        return len(list(Path("/proc/self/fd").iterdir())), set(children)

    scribe = ForkedScribe()
    await write(scribe, store, lambda: iter(BLOCKS))
    before = look()
    for _ in range(3):
        await write(scribe, store, lambda: iter(BLOCKS))
        with pytest.raises(OSError, match="says the test"):
            await write(scribe, store, _broken)
        cancelled = write(scribe, store, lambda: iter(BLOCKS))
        await asyncio.sleep(0)
        assert scribe.pid is not None
        cancelled.cancel()
        await until(lambda: scribe.pid is None)
    assert look() == before


def test_a_loop_of_another_thread_can_fork(store: SnapshotStore) -> None:
    """An application that embeds a node runs it beside its own main thread."""
    infos: list[SnapshotInfo] = []

    def live() -> None:
        infos.append(asyncio.run(ForkedScribe().write(store, 9, 2, "c", b"", lambda: iter(BLOCKS))))

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    assert infos == [store.newest]


# ---- deaths --------------------------------------------------------------------------------------------------------


class Deadly(SystemDevice):
    """A disk at whose n-th call, before it or right after it, the process that writes is killed."""

    def __init__(self, calls: int, is_after: bool) -> None:
        self._parent = os.getpid()
        self._left = calls
        self._is_after = is_after

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if (
            name not in {"create", "write", "sync", "sync_directory", "replace", "remove"}
            or os.getpid() == self._parent
        ):
            return method

        def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = method(*arguments)
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
async def test_a_child_killed_at_any_moment_leaves_a_good_one(store: SnapshotStore, is_after: bool) -> None:
    """At each of its calls to the disk: the parent lives, sees it, sweeps, and can write the next one."""
    hold(store, 4)
    good = hold(store)
    for calls in itertools.count(1):
        deadly = SnapshotStore.open(store.directory, Deadly(calls, is_after), "n1")
        try:
            info = await write(ForkedScribe(), deadly, lambda: iter(BLOCKS[:3]))
            break
        except OSError as error:
            assert "SIGKILL" in str(error)
        found = again(store).newest
        assert found == good or (found is not None and found.index == 9)
        assert not [name for name in files(store) if name.endswith(".writing")]
        if found != good:  # it had been finished
            (store.directory / f"{found.id}.snapshot").unlink()
    assert calls > 8
    assert again(store).newest == info


_PARENT = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from raftcron.raft.device import SystemDevice
    from raftcron.raft.scribe import ForkedScribe
    from raftcron.raft.snapshot import SnapshotStore

    class Deadly(SystemDevice):
        def __init__(self, calls):
            self.left, self.parent = calls, os.getpid()

        def __getattribute__(self, name):
            method = super().__getattribute__(name)
            if name not in {"create", "write", "sync", "sync_directory", "replace", "remove"}:
                return method
            if os.getpid() == self.parent:
                return method
            def call(*arguments):
                result = method(*arguments)
                self.left -= 1
                if self.left == 0:
                    os.kill(self.parent, signal.SIGKILL)
                    while True:
                        signal.pause()
                return result
            return call

    def blocks():
        for number in range(3):
            yield bytes([number]) * 70_000

    directory = Path(sys.argv[1])
"""

_EVERY_MOMENT = """
    def live(calls):
        store = SnapshotStore.open(directory, Deadly(calls), "n1")
        asyncio.run(ForkedScribe().write(store, 9, 2, "cluster-1", b"members", blocks))
        os._exit(0)

    for calls in range(1, 100):
        pid = os.fork()
        if pid == 0:
            live(calls)
        _, status = os.waitpid(pid, 0)
        print(calls, os.waitstatus_to_exitcode(status), flush=True)
        if status == 0:
            break
        sys.stdin.readline()
"""

_LEADER = """
    async def live():
        connected = asyncio.Event()
        server = await asyncio.start_server(lambda reader, writer: connected.set(), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await connected.wait()
        store = SnapshotStore.open(directory, SystemDevice(), "n1")
        def blocks():
            yield b"first"
            with open(sys.argv[2], "rb") as gate:
                gate.read()
        scribe = ForkedScribe()
        writing = asyncio.create_task(scribe.write(store, 9, 2, "cluster-1", b"members", blocks))
        while scribe.pid is None:
            await asyncio.sleep(0)
        print(scribe.pid, flush=True)
        await writing

    asyncio.run(live())
"""


@contextlib.contextmanager
def process(script: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """A real process, killed at the end whatever happens."""
    command = [sys.executable, "-c", textwrap.dedent(_PARENT) + textwrap.dedent(script), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def test_a_parent_killed_at_any_moment_leaves_a_good_one(store: SnapshotStore) -> None:
    """At each of its child's calls to the disk: the child dies with it, and the next life finds a whole snapshot."""
    good = hold(store)
    with process(_EVERY_MOMENT, store.directory) as running:
        for calls in itertools.count(1):
            number, code = line_of(running).split()
            assert int(number) == calls
            found = again(store).newest
            assert found is not None
            assert found == good or found.index == 9
            if code == "0":
                break
            assert code == str(-signal.SIGKILL)
            if found != good:
                (store.directory / f"{found.id}.snapshot").unlink()
            assert running.stdin is not None
            running.stdin.write("\n")
            running.stdin.flush()
    assert calls > 8
    assert found.index == 9


async def test_a_killed_leaders_sockets_end_at_once_and_so_does_its_child(store: SnapshotStore, gate: Gate) -> None:
    """While the child is in the middle of a snapshot: connections end, the port is free, and nothing was harmed."""
    good = hold(store)
    with process(_LEADER, store.directory, gate.path) as running:
        port = int(line_of(running))
        with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
            child = int(line_of(running))
            descriptor = await until(gate.reached)  # the child is at work, and waits
            is_over = ended(child)
            began = time.monotonic()
            running.send_signal(signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            seconds = time.monotonic() - began
        running.wait()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10.0):
            pass
        socket.create_server(("127.0.0.1", port)).close()
        await until(is_over)
        os.close(descriptor)
    assert seconds < 1.0  # it was 2.0 with a child that held them
    assert again(store).newest == good
    assert files(store) == [f"{good.id}.snapshot"]
