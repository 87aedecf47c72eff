"""The start gate, reason by reason: what it allows is refused, and counted, once one thing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from raftcron.core.commands import Place, Trigger
from raftcron.ports import Ending
from raftcron.runtime import worker
from tests.scenarios.scene import Actor, Scene, play


def _license(actor: Actor, **changes: Any) -> None:
    held = actor.presence.license._replace(**changes)
    actor.worker._license_of = lambda: held


def _end_of_job(actor: Actor, control: Any) -> None:
    state = actor.machine.state
    del state.policies[state.runs[control.run_id].uid]


def _edit_of_executor(actor: Actor, control: Any) -> None:
    """A node that has no slots for processes would run it in its own."""
    run = actor.machine.state.runs[control.run_id]
    actor.machine.state.is_process = lambda *_: not run.is_process  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[Actor, Any], None]] = {
    "run has gone on": lambda actor, control: setattr(control, "token", control.token - 1),
    "run of another life": lambda actor, control: setattr(actor.machine, "incarnation", 2),
    "draining": lambda actor, control: setattr(actor.worker, "_is_draining", True),
    "licence of another epoch": lambda actor, control: _license(actor, epoch=actor.machine.epoch - 1),
    "licence ahead of what has applied": lambda actor, control: _license(
        actor, applied_index=actor.machine.applied_index + 1
    ),
    "licence is over": lambda actor, control: _license(actor, until=actor.clock.boot()),
    "job is gone": _end_of_job,
    "another kind of slot": _edit_of_executor,
    "past its deadline": lambda actor, control: setattr(
        actor.worker, "_time", SimpleNamespace(now_ms=lambda: actor.now_ms() + 3_600_000)
    ),
}


def at_the_gate(act: Callable[[Actor, Any], None]) -> None:
    """Call `act` with a node and an attempt of its whose executor is about to ask."""

    async def stands(scene: Scene) -> None:
        asking: asyncio.Future[Any] = scene.loop.create_future()

        class Waits:
            async def run(self, attempt: Any, control: Any) -> Ending:
                asking.set_result(control)
                return await scene.loop.create_future()

        n1 = scene.leader
        n1.worker._executor = Waits()  # type: ignore[assignment]
        await scene.put(schedule="@manual", misfire={"window": "2s"})
        await n1.proposer.propose(Trigger("job", Place("n1", 1)))
        act(n1, await asking)

    play(stands)


def counted(actor: Actor) -> dict[str, int]:
    return {branch: count for branch, count in actor.worker.passes.items() if count}


@pytest.mark.parametrize("reason", CHANGES)
def test_the_gate_refuses_for_each_reason(reason: str) -> None:
    """By itself each one is enough."""

    def act(actor: Actor, control: Any) -> None:
        assert actor.worker.gate(control) is not None
        assert counted(actor) == {}
        CHANGES[reason](actor, control)
        assert control.may_start() is None
        assert counted(actor) == {f"start refused ({reason})": 1}

    at_the_gate(act)


def test_nobody_asks_twice() -> None:
    """Whatever the first answer was."""

    def act(actor: Actor, control: Any) -> None:
        assert control.may_start() is not None
        assert control.may_start() is None
        assert counted(actor) == {"start refused (asked again)": 1}

    at_the_gate(act)


def test_whoever_was_told_to_stop_does_not_start() -> None:
    """It was cancelled, or the node ends, before its executor came to ask."""

    def act(actor: Actor, control: Any) -> None:
        control.stop(worker.STOP_CANCELLED)
        assert control.may_start() is None
        assert counted(actor) == {"start refused (told to stop)": 1}

    at_the_gate(act)


def test_each_reason_is_here() -> None:
    """One that is added to the gate is added above."""
    by_hand = {"asked again", "told to stop"}
    assert {f"start refused ({reason})" for reason in by_hand | CHANGES.keys()} == set(worker.BRANCHES)
