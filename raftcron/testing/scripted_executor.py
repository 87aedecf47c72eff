"""An executor that does what a test says, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from raftcron.ports import Attempt, Control, Ending


@dataclass
class Script:
    """What attempts of one job do: take `seconds`, then end in `ending`; None never ends by itself.

    One that is stopped takes `stop_seconds` to end.
    """

    seconds: float | None = 0.0
    ending: Ending = field(default_factory=lambda: Ending("succeeded", exit_code=0))
    stop_seconds: float = 0.0


class ScriptedExecutor:
    """Runs every executor type."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.started: list[Attempt] = []
        self.stopped: list[tuple[Attempt, str]] = []
        self.is_frozen = False  # as if the machine had stopped: attempts begin nothing and end nothing

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        script = self.scripts.get(attempt.job, Script())
        if control.may_start() is None:
            return Ending("not_started")
        self.started.append(attempt)
        stop = asyncio.ensure_future(control.stopped())
        try:
            done, _ = await asyncio.wait([stop], timeout=script.seconds)
        finally:
            stop.cancel()
        if done:
            reason = stop.result()
            self.stopped.append((attempt, reason))
            if script.stop_seconds:
                await asyncio.sleep(script.stop_seconds)
            return Ending("cancelled" if reason == "cancelled" else "failed", error_kind=reason)
        return script.ending
