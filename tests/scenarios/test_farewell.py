"""Nodes that end together: who stays for whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from raftcron.core.model import Run
from raftcron.runtime.farewell import HEAR_SECONDS, KIND, REPEAT_SECONDS, WORD_SECONDS, Farewell
from raftcron.runtime.machine import Machine
from raftcron.testing.memory_log import MemoryCluster
from raftcron.testing.virtual_time import VirtualClock, VirtualLoop, run_virtual
from raftcron.testing.wall_time import WallTime

SOON = HEAR_SECONDS + 2 * REPEAT_SECONDS


class Ends:
    """Nodes n1, n2, ... that end when the test says so."""

    def __init__(self, loop: VirtualLoop, nodes: int) -> None:
        self.loop = loop
        self.cluster = MemoryCluster()
        self.left: dict[str, float] = {}  # node -> when it ended
        self.nodes: dict[str, Farewell] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        for name in (f"n{number + 1}" for number in range(nodes)):
            clock = VirtualClock(loop)
            machine = Machine(name, WallTime(clock))
            log = self.cluster.join(name, machine)
            self.nodes[name] = Farewell(node=name, machine=machine, log=log, clock=clock)

    def busy(self, *names: str) -> None:
        """A run is under way there, as every node's state has it."""
        run = Run("r", 1, "job", 0, 0, "manual", "running", 1, 1, 0)
        for log in self.cluster.logs.values():
            log.machine.state.on_node.update({name: {run.id: run} for name in names})

    def stop(self, name: str, runs_seconds: float = 0.0, at_most: float = 25.0) -> None:
        """SIGTERM: what runs there takes so long."""
        self.tasks[name] = self.loop.create_task(self._stop(name, runs_seconds, at_most))

    async def _stop(self, name: str, runs_seconds: float, at_most: float) -> None:
        telling = self.loop.create_task(self.nodes[name].tell())
        await asyncio.sleep(runs_seconds)
        for log in self.cluster.logs.values():
            log.machine.state.on_node.pop(name, None)
        await self.nodes[name].wait(at_most)
        telling.cancel()
        del self.cluster.logs[name]  # as seen by the others it is not connected any more
        self.left[name] = self.loop.time()

    async def all_left(self) -> None:
        await asyncio.gather(*self.tasks.values())


def play(act: Callable[[Ends], Awaitable[None]], nodes: int = 3) -> None:
    loop = VirtualLoop()

    async def whole() -> None:
        await act(Ends(loop, nodes))

    run_virtual(whole(), loop)


def test_idle_nodes_stay_for_the_one_whose_command_runs() -> None:
    """All end at once: those without runs are there until the last one has told, and then no longer."""

    async def act(ends: Ends) -> None:
        ends.busy("n3")
        ends.stop("n1")
        ends.stop("n2")
        await asyncio.sleep(0.2)  # its signal comes late
        ends.stop("n3", 10.0)
        await ends.all_left()
        assert 10 <= ends.left["n3"] <= 10.3
        assert all(ends.left["n3"] <= at <= ends.left["n3"] + 3 * REPEAT_SECONDS for at in ends.left.values())

    play(act)


def test_an_idle_cluster_ends_at_once() -> None:
    """Where nothing runs nobody waits for a word."""

    async def act(ends: Ends) -> None:
        for name in ends.nodes:
            ends.stop(name)
        await ends.all_left()
        assert max(ends.left.values()) <= REPEAT_SECONDS

    play(act)


def test_a_node_that_ends_alone_does_not_wait_for_others_runs() -> None:
    """The others stay: what runs there is no reason to wait, beyond the time in which they could say that they end."""

    async def act(ends: Ends) -> None:
        ends.busy("n2", "n3")
        ends.stop("n1")
        await ends.all_left()
        assert ends.left["n1"] <= SOON

    play(act)


def test_a_node_that_is_no_part_of_the_last_quorum_leaves() -> None:
    """One other ends with runs and one stays: those two are the quorum, the third is not needed."""

    async def act(ends: Ends) -> None:
        ends.busy("n2")
        ends.stop("n1")
        ends.stop("n2", 10.0)
        await ends.tasks["n1"]
        assert ends.left["n1"] <= SOON

    play(act)


def test_two_with_runs_are_a_quorum_for_each_other() -> None:
    """The idle one leaves; of the other two the first to be done stays for the second."""

    async def act(ends: Ends) -> None:
        ends.busy("n1", "n2")
        ends.stop("n1", 5.0)
        ends.stop("n2", 10.0)
        ends.stop("n3")
        await ends.all_left()
        assert ends.left["n3"] <= SOON
        assert 9.9 <= ends.left["n1"] <= 10.3

    play(act)


def test_the_wait_is_bounded_and_can_be_cut_short() -> None:
    """A command that does not end holds nobody longer than the grace, and a second signal ends the wait."""

    async def act(ends: Ends) -> None:
        ends.busy("n3")
        ends.stop("n1", at_most=5.0)
        ends.stop("n2", at_most=600.0)
        ends.stop("n3", 1_000.0)
        await ends.tasks["n1"]
        assert 4.9 <= ends.left["n1"] <= 5.0 + REPEAT_SECONDS
        await asyncio.sleep(1.0)
        assert "n2" not in ends.left
        ends.nodes["n2"].hurry()
        await ends.tasks["n2"]
        assert ends.left["n2"] <= 6.0 + 2 * REPEAT_SECONDS

    play(act)


def test_a_word_is_forgotten() -> None:
    """Who said that it ends and falls silent has started again, or is gone: nobody waits for it, and it may lead."""

    async def act(ends: Ends) -> None:
        ends.cluster.logs["n3"].send("n1", KIND, True)
        ends.cluster.logs["n2"].send("n1", KIND, False)
        await asyncio.sleep(REPEAT_SECONDS)
        assert ends.nodes["n1"].successors() == []
        ends.stop("n1")
        await ends.all_left()
        assert WORD_SECONDS - REPEAT_SECONDS <= ends.left["n1"] <= WORD_SECONDS + 2 * REPEAT_SECONDS
        assert ends.nodes["n1"].successors() == ["n2", "n3"]

    play(act)


def test_a_word_that_makes_no_sense_is_none() -> None:
    """It is logged and dropped."""

    async def act(ends: Ends) -> None:
        for message in (None, 1, "yes", [True], {}):
            ends.cluster.logs["n2"].send("n1", KIND, message)
        await asyncio.sleep(REPEAT_SECONDS)
        assert ends.nodes["n1"].successors() == ["n2"]

    play(act, nodes=2)
