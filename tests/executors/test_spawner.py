"""The spawner as the daemon uses it: real processes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftcron.errors import FatalError
from raftcron.executors import cgroups, processes
from raftcron.executors import spawner as spawner_module
from raftcron.executors.host import LINUX, Host
from raftcron.executors.spawner import Spawner, SpawnRequest, SpawnResult
from tests.executors.doubles import boot_in, eventually, with_marker
from tests.patience import quickest, struck

ATTACKS = Path(__file__).parent / "attacks.py"
NO_CGROUP = not cgroups.is_possible()
Make = Callable[..., SpawnRequest]


def open_gate() -> float:
    return boot_in(60)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextlib.contextmanager
def short_of_descriptors(left: int) -> Iterator[None]:
    """This process can open so many files, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors(os.getpid()) + 50, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(left):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def failing(module: Any, name: str, number: int, is_failing: Callable[[Any], bool]) -> Any:
    """A part of the host of which one function fails, with that error, where it is to."""
    asked = getattr(module, name)

    def answer(*arguments: Any, **named: Any) -> Any:
        if is_failing(arguments):
            raise OSError(number, os.strerror(number))
        return asked(*arguments, **named)

    return SimpleNamespace(**vars(module) | {name: answer})


async def killed_at_work(spawner: Spawner, request_for: Make) -> asyncio.Task[SpawnResult]:
    """A spawner is killed while a command is at work, of which nothing is left then."""
    marker = uuid.uuid4().hex
    request = request_for("", argv=["sleep", "300"], env={"PATH": os.environ["PATH"], "MARKER": marker})
    running = asyncio.create_task(spawner.run(request, open_gate))
    await eventually(lambda: with_marker(marker))
    assert spawner.pid is not None
    os.kill(spawner.pid, signal.SIGKILL)
    return running


async def test_a_command_reports_exit_code_and_merged_output(spawner: Spawner, request_for: Make) -> None:
    """Exit code, stdout and stderr in the order written."""
    result = await spawner.run(request_for("echo out; echo err >&2; exit 3"), open_gate)
    assert (result.outcome, result.exit_code, result.output_tail) == ("exited", 3, b"out\nerr\n")


async def test_stdin_and_directory_are_given(spawner: Spawner, request_for: Make, tmp_path: Path) -> None:
    """The command reads the bytes it was given, more than a pipe holds, and runs in its directory."""
    text = b"x" * 300_000
    result = await spawner.run(request_for("wc -c; pwd", stdin=text, cwd=str(tmp_path)), open_gate)
    assert result.output_tail.decode().split() == ["300000", str(tmp_path)]


async def test_the_environment_is_exactly_what_was_asked_and_a_mark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request_for: Make
) -> None:
    """Nothing of the daemon's environment reaches the command, and the secrets do not even reach the spawner."""
    monkeypatch.setenv("RAFTCRON_CLUSTER_SECRET", "s3cret-of-peers")
    monkeypatch.setenv("RAFTCRON_TOKEN", "s3cret-of-clients")
    spawner = Spawner(tmp_path / "run")
    await spawner.start()
    try:
        result = await spawner.run(request_for("", argv=["/usr/bin/env"], env={"A": "ä\n1"}), open_gate)
        assert b"s3cret" not in Path(f"/proc/{spawner.pid}/environ").read_bytes()
        text = result.output_tail.decode()
        assert text.startswith("A=ä\n1\nRAFTCRON_PROCESS=")
        assert len(text.splitlines()) == 3
    finally:
        await spawner.stop()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"argv": ["no-such-program"]}, "cannot run 'no-such-program': No such file or directory; looked for in PATH"),
        ({"argv": ["/"]}, "cannot run '/': Permission denied"),
        ({"cwd": "/no/such/directory"}, "cannot enter the directory '/no/such/directory': No such file"),
        ({"user": "no-such-user"}, "user 'no-such-user': getpwnam(): name not found: 'no-such-user': make it on"),
        ({"user": "nobody", "group": "no-such-group"}, "user 'nobody' and group 'no-such-group': getgrnam(): name not"),
        ({"argv": ["true", "x" * 300_000]}, "cannot run 'true': Argument list too long"),
    ],
)
async def test_what_cannot_be_started_says_why(
    spawner: Spawner, request_for: Make, changes: dict[str, object], said: str
) -> None:
    """A command that never ran is `failed`, with the step and the reason, and no run file stays."""
    request = request_for("", **changes)
    result = await spawner.run(request, open_gate)
    assert result.outcome == "failed"
    assert result.error is not None and said in result.error


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_a_command_runs_as_another_user(spawner: Spawner, request_for: Make) -> None:
    """User, group and the user's own HOME."""
    result = await spawner.run(request_for("id -un; id -gn; echo $USER", user="nobody"), open_gate)
    assert result.output_tail == b"nobody\nnogroup\nnobody\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("changes", "seen"),
    [({"user": "nobody", "group": "daemon"}, b"nobody daemon\n"), ({"group": "daemon"}, b"root daemon\n")],
)
async def test_a_command_runs_in_another_group(
    spawner: Spawner, request_for: Make, changes: dict[str, str], seen: bytes
) -> None:
    """In place of the user's own first group, or of the daemon's groups; nothing of root's is left."""
    result = await spawner.run(request_for('echo "$(id -un) $(id -Gn)"', **changes), open_gate)
    assert result.output_tail.replace(b"nogroup", b"").split() == seen.split()


async def test_a_memory_limit_is_what_each_process_may_write_to(spawner: Spawner, request_for: Make) -> None:
    """An allocation beyond it fails in the program; one that stays within, and one without a limit, do not."""
    program = "import sys; data = bytearray(int(sys.argv[1]) << 20); print(len(data) >> 20)"
    endings = []
    for size, limit in ((100, 50 << 20), (20, 50 << 20), (100, None)):
        argv = [sys.executable, "-S", "-c", program, str(size)]
        endings.append(await spawner.run(request_for("", argv=argv, memory_bytes=limit), open_gate))
    assert [ending.exit_code for ending in endings] == [1, 0, 0]
    assert endings[0].output_tail.endswith(b"MemoryError\n")
    assert endings[2].output_tail == b"100\n"


@pytest.mark.parametrize(("files", "told"), [(200, "200"), (None, "300")], ids=["raised", "as it is"])
async def test_a_command_may_open_as_many_files_as_its_daemon_found(
    tmp_path: Path, request_for: Make, files: int | None, told: str
) -> None:
    """Whatever daemon and spawner allow themselves; what an embedded node's process may, which has raised nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    spawner = Spawner(tmp_path / "run", files=files)
    try:
        await spawner.start()
        assert spawner.pid is not None
        result = await spawner.run(request_for("ulimit -Sn; ulimit -Hn"), open_gate)
        assert result.output_tail.decode().split() == [told, str(hard)]
        assert resource.prlimit(spawner.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await spawner.stop()


async def test_a_closed_gate_starts_nothing(spawner: Spawner, request_for: Make, tmp_path: Path) -> None:
    """The gate is asked, and nothing is sent."""
    result = await spawner.run(request_for(f"touch {tmp_path}/ran"), lambda: None)
    assert result.outcome == "refused"
    assert spawner.running_count == 0
    assert not (tmp_path / "ran").exists()


async def test_a_start_past_its_licence_is_refused_whatever_newer_deadline_is_held(
    spawner: Spawner, request_for: Make, tmp_path: Path
) -> None:
    """The licence that a start was checked under counts, not the spawner's newest deadline."""
    spawner.extend(boot_in(100))
    result = await spawner.run(request_for(f"touch {tmp_path}/ran"), lambda: boot_in(-0.001))
    assert result.outcome == "refused"
    assert not (tmp_path / "ran").exists()


async def test_a_request_that_waited_in_the_pipe_of_a_stopped_spawner_is_refused(
    tmp_path: Path, request_for: Make
) -> None:
    """The licence is looked at when the spawner gets the request, not when it was written."""
    spawner = Spawner(tmp_path / "run", ping_seconds=60)
    await spawner.start()
    assert spawner.pid is not None
    os.kill(spawner.pid, signal.SIGSTOP)
    licence = boot_in(0.2)
    running = asyncio.create_task(spawner.run(request_for(f"touch {tmp_path}/ran"), lambda: licence))
    await eventually(lambda: boot_in(0) > licence)
    os.kill(spawner.pid, signal.SIGCONT)
    assert (await running).outcome == "refused"
    assert not (tmp_path / "ran").exists()
    await spawner.stop()


async def test_a_timeout_kills_all_that_was_started(spawner: Spawner, request_for: Make) -> None:
    """SIGTERM is ignored by a grandchild, by one in a session of its own, and by a double fork: SIGKILL gets all."""
    marker = uuid.uuid4().hex
    deaf = f"trap '' TERM; sleep 300; : {marker}"
    command = f'({deaf}) & setsid sh -c "{deaf}" & (setsid sh -c "{deaf}" &) ; {deaf}'

    def run(seconds: float) -> Awaitable[SpawnResult]:
        return spawner.run(request_for(command, timeout_seconds=seconds, kill_after_seconds=0.2), open_gate)

    result = await struck(run, lambda: len(with_marker(marker)) >= 4, 0.4)
    assert (result.outcome, result.exit_code, result.reason) == ("exited", -9, "timeout")
    assert with_marker(marker) == []


@pytest.mark.skipif(NO_CGROUP, reason="this system gives this process no control group of its own")
async def test_a_command_has_a_control_group_as_long_as_it_runs(spawner: Spawner, request_for: Make) -> None:
    """Of its own, below that of its spawner; none is left when it has ended, none at all when the spawner has."""
    result = await spawner.run(request_for("grep ^0:: /proc/self/cgroup"), open_gate)
    path = result.output_tail.decode().strip()
    start = processes.table()[spawner.pid or 0].start
    assert path.endswith(f"/raftcron-{spawner.pid}-{start}/1")
    own = cgroups._own()
    assert own is not None
    assert Path(own, f"raftcron-{spawner.pid}-{start}").is_dir()
    assert not Path(own, f"raftcron-{spawner.pid}-{start}", "1").exists()
    pid = spawner.pid
    await spawner.stop()
    assert not Path(own, f"raftcron-{pid}-{start}").exists()


@pytest.mark.parametrize("with_cgroups", [False, True])
@pytest.mark.parametrize("ended_by", ["timeout", "stop"])
async def test_nothing_gets_away_however_fast_it_moves(
    tmp_path: Path, request_for: Make, ended_by: str, with_cgroups: bool
) -> None:
    """Processes that fork a successor in a new session and end at once, for ever: none is left, nor its successor."""
    # They leave little of the machine to the spawner: it must not be taken for dead, which is another test's affair.
    spawner = Spawner(tmp_path / "run", with_cgroups=with_cgroups, ping_seconds=60)
    await spawner.start()
    file = tmp_path / "moved"

    def run(seconds: float) -> Awaitable[SpawnResult]:
        argv = [sys.executable, "-S", str(ATTACKS), "comets", str(file), "40"]
        return spawner.run(request_for("", argv=argv, timeout_seconds=seconds, kill_after_seconds=0.1), open_gate)

    try:
        if ended_by == "timeout":
            result = await struck(run, file.exists, 0.8)
        else:
            running = asyncio.ensure_future(run(60.0))
            await eventually(file.exists)
            await asyncio.sleep(0.3)  # they are on their way
            await spawner.stop()
            result = await running
        assert result.exit_code == -9
        last = file.stat().st_mtime_ns
        await asyncio.sleep(0.2)
        assert file.stat().st_mtime_ns == last
    finally:
        await spawner.stop()


async def test_a_bomb_is_cleared_away(spawner: Spawner, request_for: Make) -> None:
    """A few hundred processes, each in a session of its own, that ignore SIGTERM and hold no file of ours."""

    def run(seconds: float) -> Awaitable[SpawnResult]:
        argv = [sys.executable, "-S", str(ATTACKS), "bomb", "7"]
        return spawner.run(request_for("", argv=argv, timeout_seconds=seconds, kill_after_seconds=0.1), open_gate)

    def family() -> int:
        assert spawner.pid is not None
        return len(list(processes.descendants(processes.table(), [spawner.pid])))

    assert (await struck(run, lambda: family() > 100, 1.5)).reason == "timeout"
    assert family() == 0


async def test_sigterm_comes_first_and_a_command_may_end_by_itself(
    spawner: Spawner, request_for: Make, tmp_path: Path
) -> None:
    """Within kill_after the command and what it started may finish their work; the exit code is its own."""
    up = tmp_path / "up"
    child = f"trap 'sleep 0.2; echo child done; exit' TERM; echo up; touch {up}; sleep 60 & wait"
    command = f"trap 'exit 7' TERM; ({child}) & wait"

    def run(seconds: float) -> Awaitable[SpawnResult]:
        return spawner.run(request_for(command, timeout_seconds=seconds, kill_after_seconds=30.0), open_gate)

    result = await struck(run, up.exists, 0.3)
    assert (result.exit_code, result.reason, result.output_tail) == (7, "timeout", b"up\nchild done\n")


async def test_what_is_left_in_the_background_ends_with_the_command(spawner: Spawner, request_for: Make) -> None:
    """An attempt is over when all that it started is over, even what has a session of its own."""
    marker = uuid.uuid4().hex
    command = f"(setsid sh -c 'sleep 300; : {marker}' &); sh -c 'sleep 300; : {marker}' & sleep 0.05; exit 0"
    result = await spawner.run(request_for(command), open_gate)
    assert result.exit_code == 0
    assert with_marker(marker) == []


async def test_a_lease_that_ends_kills_and_one_that_is_extended_does_not(
    spawner: Spawner, request_for: Make, tmp_path: Path
) -> None:
    """Self-stopping commands die at the deadline; one that continues, and one under a longer lease, do not."""
    marker = uuid.uuid4().hex
    licence = 0.0

    def dying(seconds: float) -> Awaitable[SpawnResult]:
        nonlocal licence
        licence = boot_in(seconds)
        command = f"trap '' TERM; sleep 60; sleep 60; : {marker}"
        return spawner.run(request_for(command, kill_after_seconds=0.1), lambda: licence)

    async def late() -> float:
        result = await struck(dying, lambda: with_marker(marker), 0.4)
        assert (result.exit_code, result.reason) == (-9, "lease")
        assert licence <= boot_in(0)
        return boot_in(0) - licence

    assert await quickest(late, 0.5) < 0.5

    file = tmp_path / "begun"

    def staying(seconds: float) -> Awaitable[SpawnResult]:
        nonlocal licence
        licence = boot_in(seconds)
        command = f"touch {file}; sleep {2 * seconds}; echo on"
        return spawner.run(request_for(command, self_stop=False, timeout_seconds=90.0), lambda: licence)

    assert (await struck(staying, file.exists, 0.4)).output_tail == b"on\n"
    file.unlink()

    async def extended(seconds: float) -> SpawnResult:
        nonlocal licence
        licence = boot_in(seconds)
        request = request_for(f"touch {file}; sleep {2 * seconds}; echo on", timeout_seconds=90.0)
        running = asyncio.create_task(spawner.run(request, lambda: licence))
        spawner.extend(boot_in(90))
        return await running

    assert (await struck(extended, file.exists, 0.3)).output_tail == b"on\n"


async def test_a_stop_is_told_with_its_reason(spawner: Spawner, request_for: Make) -> None:
    """The first reason to stop counts."""
    request = request_for("sleep 60")
    running = asyncio.create_task(spawner.run(request, open_gate))
    await eventually(lambda: spawner.running_count)
    spawner.stop_run(request.request_id, "cancelled", 5.0)
    spawner.stop_run(request.request_id, "shutdown", 5.0)
    result = await running
    assert (result.exit_code, result.reason) == (-15, "cancelled")


async def test_a_caller_that_gives_up_has_the_command_killed(spawner: Spawner, request_for: Make) -> None:
    """Cancelling the caller kills at once."""
    marker = uuid.uuid4().hex
    running = asyncio.create_task(spawner.run(request_for(f"sleep 300; : {marker}"), open_gate))
    await eventually(lambda: with_marker(marker))
    running.cancel()
    await eventually(lambda: not with_marker(marker))
    await eventually(lambda: spawner.running_count == 0)


async def test_a_gigabyte_of_output_is_drained_and_bounded(spawner: Spawner, request_for: Make, tmp_path: Path) -> None:
    """The command never blocks; 10 MiB and the tail are kept, the rest is counted; the spawner stays small."""
    request = request_for("head -c 1000000000 /dev/zero; echo END", output_name="big.log", timeout_seconds=110.0)
    result = await spawner.run(request, open_gate)
    assert result.exit_code == 0
    assert result.output_bytes == 1_000_000_004
    assert len(result.output_tail) == 4096
    assert result.output_tail.endswith(b"\0END\n")
    kept = (tmp_path / "output" / "big.log").read_bytes()
    dropped = 1_000_000_004 - (10 << 20) - 4096
    assert kept[10 << 20 :] == f"\n[... {dropped} bytes dropped]\n".encode() + result.output_tail
    status = Path(f"/proc/{spawner.pid}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < 40_000


async def test_two_hundred_starts_leave_nothing_behind(spawner: Spawner, request_for: Make) -> None:
    """Every one ends with its own code; no zombie, no descriptor too many on either side."""
    assert spawner.pid is not None
    before = descriptors(spawner.pid), descriptors(os.getpid())
    results = await asyncio.gather(*(spawner.run(request_for(f"echo {n}; exit {n}"), open_gate) for n in range(200)))
    assert [(result.exit_code, result.output_tail) for result in results] == [
        (n, f"{n}\n".encode()) for n in range(200)
    ]
    assert (descriptors(spawner.pid), descriptors(os.getpid())) == before
    assert [one for one in processes.table().values() if one.parent == spawner.pid] == []


async def test_a_spawner_that_dies_takes_its_children_and_is_replaced(spawner: Spawner, request_for: Make) -> None:
    """Killed with SIGKILL: what ran is gone, even a double fork, ends `lost`, and the next command runs."""
    marker = uuid.uuid4().hex
    command = f"(setsid sh -c 'sleep 300; : {marker}' &); sleep 300; : {marker}"
    running = asyncio.create_task(spawner.run(request_for(command), open_gate))
    await eventually(lambda: len(with_marker(marker)) >= 2)
    old = spawner.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    result = await running
    assert result.outcome == "lost"
    assert with_marker(marker) == []
    assert (await spawner.run(request_for("echo again"), open_gate)).output_tail == b"again\n"
    assert spawner.pid != old
    assert spawner.restart_count == 1


async def test_a_spawner_that_is_stopped_is_found_and_replaced(tmp_path: Path, request_for: Make) -> None:
    """SIGSTOP: it answers no ping, so it is killed with all it runs."""
    spawner = Spawner(tmp_path / "run", ping_seconds=0.2)  # five without an answer: not after a stall of the machine
    await spawner.start()
    marker = uuid.uuid4().hex
    running = asyncio.create_task(spawner.run(request_for(f"sleep 300; : {marker}"), open_gate))
    await eventually(lambda: with_marker(marker))
    assert spawner.pid is not None
    os.kill(spawner.pid, signal.SIGSTOP)
    assert (await running).outcome == "lost"
    assert with_marker(marker) == []
    assert (await spawner.run(request_for("echo again"), open_gate)).output_tail == b"again\n"
    await spawner.stop()


@pytest.mark.parametrize("wrong", ["unreadable", "cut_off"])
async def test_a_command_whose_file_cannot_be_read_is_never_called_unstarted(
    spawner: Spawner, request_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """The file of a command that runs is there as its spawner dies, and says nothing: it is killed, and lost."""
    marker = uuid.uuid4().hex
    command = f"(setsid sh -c 'sleep 300; : {marker}' &); sleep 300; : {marker}"
    running = asyncio.create_task(spawner.run(request_for(command), open_gate))
    await eventually(lambda: len(with_marker(marker)) >= 2)
    if wrong == "cut_off":
        os.truncate(tmp_path / "run" / "1.child", 10)
    else:
        broken = failing(os, "open", errno.EIO, lambda asked: str(asked[0]).endswith(".child"))
        monkeypatch.setattr(os, "open", broken.open)
    assert spawner.pid is not None
    os.kill(spawner.pid, signal.SIGKILL)
    assert (await running).outcome == "lost"
    assert with_marker(marker) == []


async def test_a_directory_that_cannot_be_listed_is_not_an_empty_one(
    spawner: Spawner,
    request_for: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as there is no descriptor for it nothing is told; then what it names is lost, and not unstarted."""
    monkeypatch.setattr(spawner_module, "RESTART_SECONDS", 0.01)
    is_short = True
    scarce = failing(os, "listdir", errno.EMFILE, lambda asked: is_short and asked[0] == str(tmp_path / "run"))
    monkeypatch.setattr(os, "listdir", scarce.listdir)
    running = await killed_at_work(spawner, request_for)
    await eventually(lambda: running.done() or "spawner_remnants_not_seen_gone" in caplog.text)
    assert not running.done()
    is_short = False
    assert (await running).outcome == "lost"


async def test_a_shortage_in_which_a_spawner_dies_passes(
    tmp_path: Path, request_for: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can see what it has left, then nobody start another: each is tried again, until it can be done."""
    monkeypatch.setattr(spawner_module, "RESTART_SECONDS", 0.01)
    is_short = True
    host = Host(failing(processes, "table", errno.EMFILE, lambda _: is_short), LINUX.files, LINUX.launch)
    spawner = Spawner(tmp_path / "run", host=host)
    await spawner.start()
    running = await killed_at_work(spawner, request_for)
    await eventually(lambda: caplog.text.count("spawner_remnants_not_seen_gone") > 1)
    assert not running.done()
    with short_of_descriptors(left=1):
        is_short = False
        await eventually(lambda: caplog.text.count("spawner_start_failed") > 1)
    assert (await running).outcome == "lost"
    assert (await spawner.run(request_for("echo again"), open_gate)).output_tail == b"again\n"
    await spawner.stop()


async def test_a_spawner_that_cannot_be_accounted_for_ends_its_node(tmp_path: Path, request_for: Make) -> None:
    """The node is told, what was sent is never called unstarted, whoever else comes is refused, and `stop` returns."""
    is_broken = False
    told: list[BaseException] = []
    host = Host(failing(processes, "boot_id", errno.EIO, lambda _: is_broken), LINUX.files, LINUX.launch)
    spawner = Spawner(tmp_path / "run", host=host, fatal=told.append)
    await spawner.start()
    is_broken = True
    running = await killed_at_work(spawner, request_for)
    [error] = await eventually(lambda: told)
    assert isinstance(error, FatalError) and "Input/output error" in error.detail
    assert (await spawner.run(request_for("true"), open_gate)).outcome == "refused"
    await spawner.stop()
    assert not running.done()
    running.cancel()


async def test_a_request_that_the_dead_spawner_never_read_certainly_did_not_start(
    tmp_path: Path, request_for: Make
) -> None:
    """No run file, no user code: it may be started again."""
    spawner = Spawner(tmp_path / "run", ping_seconds=60)
    await spawner.start()
    assert spawner.pid is not None
    os.kill(spawner.pid, signal.SIGSTOP)
    running = asyncio.create_task(spawner.run(request_for(f"touch {tmp_path}/ran"), open_gate))
    await eventually(lambda: spawner.running_count)
    os.kill(spawner.pid, signal.SIGKILL)
    assert (await running).outcome == "refused"
    assert not (tmp_path / "ran").exists()
    await spawner.stop()


async def test_stop_kills_what_runs_and_says_so(tmp_path: Path, request_for: Make) -> None:
    """After stop nothing runs, whoever waits has an answer, and later requests are refused."""
    marker = uuid.uuid4().hex
    spawner = Spawner(tmp_path / "run")
    await spawner.start()
    pid = spawner.pid
    assert pid is not None
    running = asyncio.create_task(spawner.run(request_for(f"sleep 300; : {marker}"), open_gate))
    await eventually(lambda: with_marker(marker))
    await spawner.stop()
    result = await running
    assert (result.outcome, result.exit_code, result.reason) == ("exited", -9, "daemon")
    assert with_marker(marker) == []
    assert processes.look(pid) is None
    assert (await spawner.run(request_for("true"), open_gate)).outcome == "refused"


async def test_the_spawner_is_small_and_starts_fast(tmp_path: Path) -> None:
    """It imports no asyncio, no HTTP, no typed records; below 30 MB, one thread."""
    spawner = Spawner(tmp_path / "run")
    await spawner.start()
    maps = Path(f"/proc/{spawner.pid}/maps").read_text()
    status = Path(f"/proc/{spawner.pid}/status").read_text()
    await spawner.stop()
    assert "_asyncio" not in maps and "aiohttp" not in maps and "msgspec" not in maps and "_ssl" not in maps
    assert int(status.split("VmRSS:")[1].split()[0]) < 30_000
    assert status.split("Threads:")[1].split()[0] == "1"
