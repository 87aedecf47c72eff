"""NoopExecutor: asks the gate and succeeds at once, to try schedules and to measure all but the work itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from raftcron.errors import Fault
from raftcron.executors.registry import Surroundings
from raftcron.executors.validation import Findings
from raftcron.ports import Attempt, Control, Ending


class NoopExecutor:
    """`{"type": "noop"}`."""

    @classmethod
    def create(cls, surroundings: Surroundings) -> Self:
        return cls()

    @staticmethod
    def validate(spec: Mapping[str, Any]) -> list[Fault]:
        findings = Findings()
        findings.unknown_fields(spec, {"type"})
        return findings.items

    async def run(self, attempt: Attempt, control: Control) -> Ending:
        return Ending("succeeded") if control.may_start() is not None else Ending("not_started")

    async def close(self) -> None:
        """Holds nothing."""
