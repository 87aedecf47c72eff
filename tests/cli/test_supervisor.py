"""The supervisor of a local cluster, with stand-ins for nodes: starts again, stops cleanly, leaves no orphan."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from raftcron.cli.supervisor import NodeProcess, Supervisor

STAND_IN = Path(__file__).with_name("stand_in_node.py")
READY = "ready"


def stand_in(name: str) -> NodeProcess:
    return NodeProcess(name, [sys.executable, str(STAND_IN)], READY)


def python(name: str, code: str) -> NodeProcess:
    return NodeProcess(name, [sys.executable, "-c", code], READY)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Started:
    """A supervisor that runs, and what it has written."""

    def __init__(self, *nodes: NodeProcess, restarts: bool = True, stop_seconds: float = 60) -> None:
        self.lines: list[str] = []
        self.is_ready = False
        self.supervisor = Supervisor(
            nodes, write=self.lines.append, restarts=restarts, stop_seconds=stop_seconds, first_delay_seconds=0.01
        )
        self.task = asyncio.create_task(self.supervisor.run(self.ready))

    def ready(self) -> None:
        self.is_ready = True

    def has(self, text: str, count: int = 1) -> bool:
        return sum(text in line for line in self.lines) >= count


@contextlib.asynccontextmanager
async def started(*nodes: NodeProcess, restarts: bool = True, stop_seconds: float = 60) -> AsyncIterator[Started]:
    run = Started(*nodes, restarts=restarts, stop_seconds=stop_seconds)
    try:
        yield run
    finally:
        run.supervisor.stop()
        run.supervisor.stop()
        await run.task


async def test_all_become_ready_and_stop_cleanly() -> None:
    """Readiness is told once all answer; on stop every node ends by SIGTERM and the exit code is 0."""
    async with started(stand_in("n1"), stand_in("n2"), stand_in("n3")) as run:
        await until(lambda: run.is_ready)
        pids = list(run.supervisor.pids.values())
        assert len(set(pids)) == 3
        run.supervisor.stop()
        assert await run.task == 0
        assert [f"n{i} | stopped cleanly" in run.lines for i in (1, 2, 3)] == [True] * 3
        assert [f"n{i} : stopped" in run.lines for i in (1, 2, 3)] == [True] * 3
        assert not any(is_alive(pid) for pid in pids)


async def test_only_its_own_processes_make_the_cluster_ready() -> None:
    """A node counts as ready when its process says so and lives, not when somebody else has its address."""
    code = "print('ready', flush=True); raise SystemExit(2)"
    async with started(python("n1", code), stand_in("n2"), python("n3", "import signal; signal.pause()")) as run:
        await until(lambda: run.has("it is not started again") and run.has("n2 | ready"))
        assert run.supervisor.pids.keys() == {"n2", "n3"}
        assert not run.is_ready


async def test_a_killed_node_is_started_again_and_the_others_live_on() -> None:
    """SIGKILL of one node brings a new process of that node, and touches no other."""
    async with started(stand_in("n1"), stand_in("n2")) as run:
        await until(lambda: run.is_ready)
        first, other = run.supervisor.pids["n1"], run.supervisor.pids["n2"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: run.has("n1 | ready", 2))
        assert run.supervisor.pids["n1"] != first
        assert run.supervisor.pids["n2"] == other
        assert run.has("n1 : was killed by SIGKILL")
        run.supervisor.stop()
        assert await run.task == 0


async def test_without_restart_a_dead_node_stays_dead() -> None:
    """With restarts off the others live on, and when none is left the supervisor ends with 1."""
    async with started(stand_in("n1"), stand_in("n2"), restarts=False) as run:
        await until(lambda: run.is_ready)
        os.kill(run.supervisor.pids["n1"], signal.SIGKILL)
        await until(lambda: run.has("it is not started again"))
        assert list(run.supervisor.pids) == ["n2"]
        os.kill(run.supervisor.pids["n2"], signal.SIGKILL)
        assert await run.task == 1


async def test_restarts_back_off() -> None:
    """A node that dies at once is started again after doubling delays."""
    async with started(python("n1", "raise SystemExit(1)")) as run:
        await until(lambda: run.has("starts again in", 3))
        told = [line.rpartition("in ")[2] for line in run.lines if "starts again in" in line]
        assert told[:3] == ["0.01 s", "0.02 s", "0.04 s"]


async def test_settings_that_cannot_be_used_are_not_tried_again() -> None:
    """Exit code 2 means the next start would end the same way: the supervisor says so and passes it on."""
    async with started(python("n1", "raise SystemExit(2)")) as run:
        assert await run.task == 2
        assert run.has("n1 : ended with exit code 2; it is not started again")


async def test_a_command_that_does_not_exist() -> None:
    """What cannot be executed is said by name."""
    async with started(NodeProcess("n1", ["/nonexistent/python"], READY)) as run:
        assert await run.task == 2
        assert run.has("cannot be started")


async def test_a_node_that_does_not_stop_is_killed() -> None:
    """After the time for a clean stop comes SIGKILL, and the exit code says that it was not clean."""
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    async with started(python("n1", deaf), stop_seconds=0.05) as run:
        await until(lambda: run.has("n1 | up"))
        pid = run.supervisor.pids["n1"]
        run.supervisor.stop()
        assert await run.task == 1
        assert not is_alive(pid)


async def test_a_second_stop_does_not_wait() -> None:
    """Ctrl-C twice kills at once, however long a clean stop may take."""
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    async with started(python("n1", deaf), stop_seconds=3600) as run:
        await until(lambda: run.has("n1 | up"))
        run.supervisor.stop()
        run.supervisor.stop()
        assert await run.task == 1
        assert run.has("n1 : was killed by SIGKILL")


async def test_a_stop_while_a_node_waits_for_its_restart() -> None:
    """Nothing is started once a stop was asked for."""
    node = python("n1", "raise SystemExit(1)")
    lines: list[str] = []
    supervisor = Supervisor([node], write=lines.append, stop_seconds=10, first_delay_seconds=3600)
    task = asyncio.create_task(supervisor.run(lambda: None))
    await until(lambda: any("starts again" in line for line in lines))
    supervisor.stop()
    assert await asyncio.wait_for(task, 60) == 0
    assert sum("started, process" in line for line in lines) == 1


async def test_lines_are_prefixed_and_bounded() -> None:
    """Each line has its node's name; bytes that are no UTF-8 and a line without end do no harm."""
    code = r"import sys; o = sys.stdout.buffer; o.write(b'a\nb\xff\n' + b'x' * 200_000 + b'\nlast'); o.flush()"
    async with started(python("n1", code), restarts=False) as run:
        await run.task
        shown = [line.removeprefix("n1 | ") for line in run.lines if line.startswith("n1 | ")]
        assert shown[:2] == ["a", "b\ufffd"]
        assert shown[-1] == "last"
        assert sum(line.count("x") for line in shown) == 200_000
        assert max(map(len, shown)) <= 2 << 16


async def test_a_child_that_keeps_the_output_open_does_not_hold_up_its_nodes_restart() -> None:
    """The end of a node is the end of its process, not of whoever inherited its stdout."""
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print('child', p.pid, flush=True); sys.exit(1)"
    )
    async with started(python("n1", code)) as run:
        try:
            await until(lambda: run.has("starts again"))
        finally:
            for line in run.lines:
                if "| child" in line:
                    os.kill(int(line.split()[-1]), signal.SIGKILL)
            run.supervisor.stop()


async def test_nodes_end_with_a_supervisor_that_is_killed() -> None:
    """SIGKILL of the supervisor leaves no node behind: the kernel sends each a SIGTERM."""
    code = f"""
import asyncio, sys
from raftcron.cli.supervisor import NodeProcess, Supervisor
nodes = [NodeProcess(name, [sys.executable, {str(STAND_IN)!r}], {READY!r}) for name in ("n1", "n2")]
supervisor = Supervisor(nodes, write=lambda line: None, stop_seconds=10)
asyncio.run(supervisor.run(lambda: print(*supervisor.pids.values(), flush=True)))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        pids = [int(pid) for pid in (await process.stdout.readline()).split()]
    assert len(pids) == 2
    assert all(is_alive(pid) for pid in pids)
    process.kill()
    await process.wait()
    try:
        await until(lambda: not any(is_alive(pid) for pid in pids))
    finally:
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)
