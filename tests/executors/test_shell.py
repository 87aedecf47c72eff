"""The shell executor: what a command sees, and what its end is called."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from raftcron.executors.registry import Surroundings
from raftcron.executors.shell import ShellExecutor
from raftcron.executors.spawner import Spawner
from raftcron.ports import Ending
from tests.executors.doubles import HandControl, eventually, make_attempt, with_marker
from tests.patience import struck

DAEMON = {
    "PATH": os.environ["PATH"],
    "HOME": "/home/daemon",
    "LANG": "C.UTF-8",
    "PYTHONPATH": "/x",
    "RAFTCRON_CLUSTER_SECRET": "s3cret",
    "RAFTCRON_TOKEN": "s3cret",
    "AWS_SECRET_ACCESS_KEY": "s3cret",
}


@pytest.fixture
def shell(spawner: Spawner) -> ShellExecutor:
    return ShellExecutor.create(Surroundings(allow_shell=True, spawner=spawner, environment=DAEMON))


async def run(
    shell: ShellExecutor, command: str | list[str], control: HandControl | None = None, **more: Any
) -> Ending:
    spec = {"type": "shell", "command": command} | more.pop("spec", {})
    return await shell.run(make_attempt(spec, **more), control or HandControl())


async def test_success_and_failure(shell: ShellExecutor) -> None:
    """Exit code 0 is success, any other a proven failure with the code."""
    assert await run(shell, "echo fine") == Ending("succeeded", exit_code=0, output_tail=b"fine\n")
    assert await run(shell, "echo bad; exit 4") == Ending(
        "failed", exit_code=4, error="exit code 4", error_kind="exit", output_tail=b"bad\n"
    )
    killed = await run(shell, "kill -KILL $$")
    assert (killed.exit_code, killed.error, killed.proven) == (137, "killed by SIGKILL", True)


async def test_an_argv_meets_no_shell(shell: ShellExecutor) -> None:
    """Arguments arrive as they are."""
    ending = await run(shell, ["printf", "%s|", "a b", "$HOME", "*"])
    assert ending.output_tail == b"a b|$HOME|*|"


async def test_a_command_sees_exactly_this(shell: ShellExecutor) -> None:
    """Section 4 of api.md, the job's own variables, little of the daemon's, and no secret."""
    ending = await run(
        shell,
        ["/usr/bin/env", "-0"],
        spec={"env": {"MINE": "a\nb"}},
        fencing_token=7,
        attempt=2,
        args={"k": "é"},
        missed_count=1,
        previous_time="2026-01-02T03:00:00Z",
        shard_index=1,
        shard_count=2,
        traceparent="00-1-2-01",
    )
    seen = dict(line.split("=", 1) for line in ending.output_tail.decode().split("\0")[:-1])
    assert seen.pop("RAFTCRON_PROCESS").endswith(".7")
    assert seen == {
        "PATH": DAEMON["PATH"],
        "HOME": "/home/daemon",
        "LANG": "C.UTF-8",
        "MINE": "a\nb",
        "RAFTCRON_JOB": "backup",
        "RAFTCRON_RUN_ID": "7-1700000000000",
        "RAFTCRON_SCHEDULED_TIME": "2026-01-02T03:04:05Z",
        "RAFTCRON_ATTEMPT": "2",
        "RAFTCRON_FENCING_TOKEN": "7",
        "RAFTCRON_ARGS": '{"k":"é"}',
        "RAFTCRON_MISSED_COUNT": "1",
        "RAFTCRON_PREVIOUS_TIME": "2026-01-02T03:00:00Z",
        "RAFTCRON_SHARD_INDEX": "1",
        "RAFTCRON_SHARD_COUNT": "2",
        "RAFTCRON_NODE": "n1",
        "TRACEPARENT": "00-1-2-01",
    }


async def test_directory_and_stdin(shell: ShellExecutor, tmp_path: Path) -> None:
    """As the job says."""
    ending = await run(shell, "cat; pwd", spec={"cwd": str(tmp_path), "stdin": "grüß\n"})
    assert ending.output_tail.decode() == f"grüß\n{tmp_path}\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_another_user_gets_a_home_of_its_own(shell: ShellExecutor) -> None:
    """Not the daemon's."""
    ending = await run(shell, "id -un; echo $HOME $USER", spec={"user": "nobody"})
    assert ending.output_tail == b"nobody\n/nonexistent nobody\n"


async def test_the_full_output_is_on_disk(shell: ShellExecutor, tmp_path: Path) -> None:
    """In a file named by run and token; a silent command has none."""
    await run(shell, "seq 10000", fencing_token=11)
    await run(shell, "true", fencing_token=12)
    files = list((tmp_path / "output").iterdir())
    assert [file.name for file in files] == ["7-1700000000000.11.log"]
    assert files[0].read_text().split() == [str(number) for number in range(1, 10001)]


async def test_a_node_that_runs_no_commands_says_how_to_allow_them() -> None:
    """A proven failure that the gate was not asked about."""
    shell = ShellExecutor.create(Surroundings())
    control = HandControl()
    ending = await run(shell, "true", control)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "not_allowed")
    assert ending.error is not None and "--allow-shell" in ending.error
    assert control.asked_count == 0


async def test_what_cannot_start_is_a_proven_failure(shell: ShellExecutor) -> None:
    """No such command; and arguments that the kernel does not take."""
    for spec in ({"command": ["no-such"]}, {"command": ["true"], "cwd": "/no/such"}):
        ending = await run(shell, "", spec=spec)
        assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "spawn")
    ending = await run(shell, "true", args="x" * 9_000_000)
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", True, "spawn")


async def test_a_closed_gate_starts_nothing(shell: ShellExecutor, tmp_path: Path) -> None:
    """Asked once, and the command did not run."""
    control = HandControl(None)
    assert (await run(shell, f"touch {tmp_path}/ran", control)).state == "not_started"
    assert control.asked_count == 1
    assert not (tmp_path / "ran").exists()


async def test_a_timeout(shell: ShellExecutor, tmp_path: Path) -> None:
    """The output until then is kept."""
    begun = tmp_path / "begun"

    def sleep(seconds: float) -> Awaitable[Ending]:
        return run(shell, f"echo begun; touch {begun}; sleep 60", timeout_seconds=seconds, kill_after_seconds=30.0)

    ending = await struck(sleep, begun.exists, 0.2)
    assert (ending.state, ending.proven, ending.exit_code, ending.error_kind) == ("timed_out", True, 143, "timeout")
    assert ending.output_tail == b"begun\n"


@pytest.mark.parametrize(
    ("reason", "state", "exit_code"),
    [("cancelled", "cancelled", 143), ("shutdown", "failed", 143), ("lease", "failed", 137)],
)
async def test_a_stop(shell: ShellExecutor, reason: str, state: str, exit_code: int) -> None:
    """SIGTERM for a cancel and a shutdown, SIGKILL at once when the lease has ended; all of it is gone."""
    marker = uuid.uuid4().hex
    control = HandControl()
    running = asyncio.create_task(run(shell, f"sleep 300; : {marker}", control))
    await eventually(lambda: with_marker(marker))
    control.stop(reason)
    ending = await running
    assert (ending.state, ending.proven, ending.exit_code, ending.error_kind) == (state, True, exit_code, reason)
    assert with_marker(marker) == []


@pytest.mark.parametrize(("reason", "state"), [("cancelled", "cancelled"), ("shutdown", "not_started")])
async def test_a_stop_before_the_spawner_is_there_starts_nothing(tmp_path: Path, reason: str, state: str) -> None:
    """It waited for a spawner: user code certainly did not start."""
    shell = ShellExecutor.create(Surroundings(allow_shell=True, spawner=Spawner(tmp_path / "run")))
    control = HandControl()
    control.stop(reason)
    ending = await run(shell, "true", control)
    assert (ending.state, ending.proven, ending.error_kind) == (state, True, reason)
    assert control.asked_count == 0


@pytest.mark.parametrize("why", ["shutdown", "cancelled", "timeout"])
async def test_nothing_outlasts_the_grace_of_a_node_that_stops(shell: ShellExecutor, tmp_path: Path, why: str) -> None:
    """Whatever stopped it before, and however long its own kill_after."""
    deaf, told = tmp_path / "deaf", tmp_path / "told"
    command = f"trap 'touch {told}' TERM; touch {deaf}; while :; do sleep 0.01; done"

    async def stop_twice(timeout_seconds: float) -> Ending:
        control = HandControl()
        running = asyncio.create_task(
            run(shell, command, control, timeout_seconds=timeout_seconds, kill_after_seconds=600.0)
        )
        await eventually(lambda: deaf.exists() or running.done())
        if why != "timeout":
            control.stop(why)
        await eventually(lambda: told.exists() or running.done())
        if why == "timeout":
            control.stop("shutdown")
        assert running.done() == (not told.exists())
        control.grace_over.set()
        return await running

    ending = await struck(stop_twice, told.exists, 0.3 if why == "timeout" else 50.0)
    assert (ending.error_kind, ending.exit_code, ending.proven) == (why, 137, True)


async def test_a_lost_spawner_is_an_unproven_failure(shell: ShellExecutor, spawner: Spawner) -> None:
    """Nobody saw how the command ended."""
    marker = uuid.uuid4().hex
    running = asyncio.create_task(run(shell, f"sleep 300; : {marker}"))
    await eventually(lambda: with_marker(marker))
    assert spawner.pid is not None
    os.kill(spawner.pid, 9)
    ending = await running
    assert (ending.state, ending.proven, ending.error_kind) == ("failed", False, "spawner")


async def test_a_worker_that_gives_up_leaves_nothing_running(shell: ShellExecutor, spawner: Spawner) -> None:
    """Cancelling the executor's coroutine kills the command."""
    marker = uuid.uuid4().hex
    running = asyncio.create_task(run(shell, f"sleep 300; : {marker}"))
    await eventually(lambda: with_marker(marker))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: spawner.running_count == 0)
    assert with_marker(marker) == []
