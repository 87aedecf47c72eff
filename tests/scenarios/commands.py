"""Attempts on the stage that are commands: the shipped spawner and its custody over a simulated machine, so that
time-outs and signals are the real ones; what a command does is its script's.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from raftcron.clock import Clock
from raftcron.executors.registry import Surroundings
from raftcron.executors.shell import ShellExecutor
from raftcron.executors.spawner import Spawner
from raftcron.ports import Attempt, Control, Ending
from raftcron.runtime.leases import License
from raftcron.testing.scripted_executor import Script, ScriptedExecutor
from raftcron.testing.sim_processes import Box, Course, UserCode
from raftcron.testing.virtual_time import VirtualLoop

NEVER: Final = 1e9  # seconds: beyond every story
DEAF: Final = Script(None, stop_seconds=math.inf)  # hears no SIGTERM


class StageLoop(VirtualLoop):
    """A virtual loop that serves a simulated machine, too."""

    is_dead = False

    @property
    def now(self) -> float:
        return self.time()

    def after(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        self.call_later(seconds, action, *args)

    def at(self, instant: float, action: Callable[..., None], *args: Any) -> None:
        self.call_at(instant, action, *args)


class CommandExecutor(ScriptedExecutor):
    """Runs each attempt as a command; `signals` are those that commands got: (run, wall time in ms, name)."""

    def __init__(self, name: str, loop: VirtualLoop, clock: Clock, lease_grace_seconds: float) -> None:
        super().__init__()
        self.signals: list[tuple[str, int, str]] = []
        self._attempts: dict[int, Attempt] = {}  # by fencing token
        self._clock = clock
        stage: Any = loop  # a StageLoop does as conductor and as loop of a simulated node
        self._box = Box(name, stage, clock, Counter(), self._begin, lambda run, token: None)
        self._spawner = Spawner(
            Path("/run"),
            host=self._box.host(stage),
            lease_grace_seconds=lease_grace_seconds,
            ping_seconds=NEVER,  # none of them hangs
        )
        surroundings = Surroundings(allow_shell=True, spawner=self._spawner, environment={}, clock=clock)
        self._shell = ShellExecutor.create(surroundings)
        self._starting = loop.create_task(self._spawner.start())

    def licensed(self, held: License) -> None:
        """As the daemon tells its spawner."""
        self._spawner.extend(held.until)

    def die(self) -> None:
        """The node's process is gone, and its end of the pipe with it."""
        self._box.node_gone()

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        await asyncio.shield(self._starting)
        self._attempts[attempt.fencing_token] = attempt
        return await self._shell.run(attempt._replace(executor={"type": "shell", "command": ":"}), control)

    def _begin(self, request: Mapping[str, Any], code: UserCode) -> Course:
        """The command starts; what it does on a signal is its script's, but for SIGKILL."""
        attempt = self._attempts[request["token"]]
        self.started.append(attempt)
        script = self.scripts.get(attempt.job, Script())

        def heed(number: int) -> None:
            now = round(self._clock.wall() * 1000)
            self.signals.append((request["run_id"], now, signal.Signals(number).name))
            seconds = 0.0 if number == signal.SIGKILL else min(script.stop_seconds, NEVER)
            self._box.at(seconds, lambda: code._end(number))

        code.end_by = heed  # type: ignore[method-assign]
        seconds = NEVER if script.seconds is None else script.seconds
        return Course(seconds, fails=script.ending.state != "succeeded")
