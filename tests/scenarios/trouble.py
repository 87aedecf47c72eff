"""What befalls nodes on the stage: one is cut off, or stopped; what one writes is late; a planner forgets a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raftcron.core import planner
from raftcron.core.commands import Decision
from raftcron.errors import UnavailableError, UnknownOutcomeError
from raftcron.ports import Applied
from raftcron.testing.memory_log import MemoryLog
from tests.scenarios.scene import Actor, Scene
from tests.simulation.switch import Replacement

# ---- a node that hears nothing ---------------------------------------------------------------------------------------


def cut_off(actor: Actor) -> None:
    """It hears nothing of the log and knows no leader, so that it sends nothing either."""
    actor.log.lag()
    actor.log.knows_leader = False


def heal(actor: Actor) -> None:
    actor.log.knows_leader = True
    actor.log.resume()


def apply_until(actor: Actor, index: int) -> None:
    """A lagging node applies up to `index` and no further."""
    log = actor.log
    while log.applied_index < index:
        log.applied_index += 1
        actor.machine.apply(log.applied_index, log.cluster.entries[log.applied_index - 1])
    actor.machine.applied(log.applied_index)


# ---- a daemon that is stopped ----------------------------------------------------------------------------------------


def freeze(scene: Scene, actor: Actor) -> None:
    """SIGSTOP to the daemon alone: it does nothing of itself, its spawner goes on."""
    if scene.cluster.leader == actor.name:
        scene.cluster.depose()
    cut_off(actor)
    for task in actor.tasks:
        task.cancel()
    if actor.worker._lease_timer is not None:
        actor.worker._lease_timer.cancel()


def thaw(scene: Scene, actor: Actor) -> None:
    """SIGCONT: it looks at what is due first, as its loop does, and then hears what has happened."""
    works = [actor.presence.run(), actor.worker.run(), *([actor.clocks.run()] if scene.is_agreed else [])]
    actor.tasks = [scene.loop.create_task(work) for work in works]
    actor.worker.sweep()
    heal(actor)


# ---- writes that are late --------------------------------------------------------------------------------------------


@dataclass
class Late:
    """The log of a node whose entries are on their way; the rest of it is as it was.

    In the place of the log in the node's proposer: whoever has proposed waits until `arrive`.
    """

    log: MemoryLog
    on_the_way: list[tuple[bytes, asyncio.Future[Applied]]] = field(default_factory=list)

    @property
    def leading_epoch(self) -> int | None:
        return self.log.leading_epoch

    async def propose(self, body: bytes, epoch: int) -> Applied:
        if epoch != self.leading_epoch:
            raise UnavailableError(f"node {self.log.name} does not lead: nothing was written")
        answer: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self.on_the_way.append((body, answer))
        return await answer

    def arrive(self) -> None:
        """All of it is committed, whoever leads by now and whoever waits still; who asked learns what came of it."""
        for body, answer in self.on_the_way:
            index = self.log.cluster.append(body)
            if answer.done():
                continue
            if self.log.applied_index >= index:
                answer.set_result(Applied(index, self.log._outcomes[index]))
            else:
                answer.set_exception(UnknownOutcomeError("this node hears nothing: it may be written"))
        self.on_the_way.clear()


# ---- a planner with a fault ------------------------------------------------------------------------------------------


def forgets(when: int) -> Replacement:
    """planner.decide, but one time, in ms since the epoch, is neither fired nor skipped, whichever job owes it."""
    shipped: Callable[..., Decision | None] = planner.decide

    def decide(*asked: Any) -> Decision | None:
        found = shipped(*asked)
        if found is None:
            return None
        fires = [fire for fire in found.fires if fire.scheduled_time != when]
        return Decision(found.uid, found.revision, found.through, fires, found.summaries)

    return planner, "decide", decide
