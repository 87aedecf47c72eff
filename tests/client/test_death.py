"""The node that a client talks to dies in the middle of a write: the client goes on through another, writing once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest

from raftcron.client import AsyncClient, Client
from raftcron.errors import ConflictError, UnknownOutcomeError
from tests.api.bench import GOOD, Bench, bench


@pytest.fixture
async def three() -> AsyncIterator[Bench]:
    async with bench(3, hold_seconds=0.3) as made:
        yield made


class Death:
    """n1, which leads, dies at one of its proposals, before or behind its commit; then n2 leads, unless nobody does."""

    successor: str | None = "n2"

    def __init__(self, made: Bench, at: int, *, is_committed: bool) -> None:
        self.made = made
        self.left = at
        self.is_committed = is_committed
        self.has_come = False
        self.propose = made.n1.log.propose
        made.n1.log.propose = self  # type: ignore[method-assign, assignment]

    async def __call__(self, body: bytes, epoch: int) -> Any:
        self.left -= 1
        if self.left > 0:
            return await self.propose(body, epoch)
        if self.is_committed:
            await self.propose(body, epoch)
        return self.come()

    def come(self) -> NoReturn:
        """Its sockets close without an answer, and what it was at ends."""
        self.has_come = True
        runner = self.made.n1.runner
        for site in runner.sites:
            site._server.close()  # type: ignore[attr-defined]
        assert runner._server is not None
        for connection in list(runner._server.connections):
            assert connection.transport is not None
            connection.transport.abort()
        if self.successor is None:
            self.made.cluster.depose()
        else:
            self.made.cluster.elect(self.successor)
        raise asyncio.CancelledError


def named(made: Bench, options: dict[str, Any]) -> list[str]:
    """One address is enough, unless the client may not ask for the others."""
    return [made.n1.url] if options.get("discover", True) else [node.url for node in made.nodes.values()]


async def sync(made: Bench, act: Callable[[Any], Any], at: int, *, is_committed: bool, **options: Any) -> Any:
    def run() -> Any:
        with Client(named(made, options), **options) as client:
            client.whoami()  # it learns where the others are
            death = Death(made, at, is_committed=is_committed)
            found = act(client)
            assert death.has_come
            return found

    return await asyncio.to_thread(run)


async def asynchronous(made: Bench, act: Callable[[Any], Any], at: int, *, is_committed: bool, **options: Any) -> Any:
    async with AsyncClient(named(made, options), **options) as client:
        await client.whoami()
        death = Death(made, at, is_committed=is_committed)
        found = await act(client)
        assert death.has_come
        return found


BOTH = pytest.mark.parametrize("call", [sync, asynchronous])


@BOTH
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_run_that_was_asked_for_is_there_once(three: Bench, call: Any, is_committed: bool) -> None:
    """Whether the node died before or behind the commit."""
    await three.put("a")
    run = await call(three, lambda client: client.run_job("a"), 1, is_committed=is_committed)
    assert [run["id"]] == list(three.n2.machine.state.runs)


@BOTH
@pytest.mark.parametrize("method", ["put_job", "create_job"])
async def test_without_a_successor_the_outcome_is_not_known(
    three: Bench, call: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others say that they have written nothing; the one that died may have, and has."""
    monkeypatch.setattr(Death, "successor", None)

    def write(client: Any) -> Any:
        return client.put_job("a", GOOD) if method == "put_job" else client.create_job({**GOOD, "name": "a"})

    with pytest.raises(UnknownOutcomeError, match="broke off"):
        await call(three, write, 1, is_committed=True, patience_seconds=1.0, discover=False)
    assert "a" in three.n2.machine.state.jobs


@BOTH
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_job_is_made_once(three: Bench, call: Any, is_committed: bool) -> None:
    """A repeat is not told that the name is taken."""
    job = await call(three, lambda client: client.create_job({**GOOD, "name": "a"}), 1, is_committed=is_committed)
    assert [job["uid"]] == [one["uid"] for one in (await three.ask("GET", "/v1/jobs", on="n2")).json["items"]]


@BOTH
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_job_that_was_deleted_is_not_missing(three: Bench, call: Any, is_committed: bool) -> None:
    """A repeat is not told that there is none."""
    await three.put("a")
    await call(three, lambda client: client.delete_job("a"), 1, is_committed=is_committed)
    assert not three.n2.machine.state.jobs


@BOTH
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_member_is_removed_though_the_leader_dies_over_it(three: Bench, call: Any, is_committed: bool) -> None:
    """At its second entry, which keeps the key behind the change: a repeat finds the key, or nobody of that name."""
    await call(three, lambda client: client.remove_member("n3"), 2, is_committed=is_committed)
    assert "n3" not in three.cluster.members.seats


@BOTH
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_member_is_added_though_the_leader_dies_over_it(three: Bench, call: Any, is_committed: bool) -> None:
    """A repeat shows it, however far it has come."""
    found = await call(three, lambda client: client.add_member("n4", "127.0.0.1:7204"), 2, is_committed=is_committed)
    assert [one["name"] for one in found["members"]] == ["n1", "n2", "n3", "n4"]


@BOTH
async def test_a_lead_that_was_handed_over_stays_there(three: Bench, call: Any) -> None:
    """The death of the old leader hands it over, too: the repeat does not do so again."""
    found = await call(three, lambda client: client.transfer(), 1, is_committed=True)
    assert found == {"leader": "n2"}


@BOTH
@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_node_is_drained_once(three: Bench, call: Any, is_committed: bool) -> None:
    """The repeat shows what it is."""
    found = await call(three, lambda client: client.drain("n3"), 1, is_committed=is_committed)
    assert [one["name"] for one in found["members"] if one["drained"]] == ["n3"]


@BOTH
async def test_the_clock_of_a_successor_is_not_accepted_instead(three: Bench, call: Any) -> None:
    """Where the leader died before the commit, whoever leads then has another clock, at which nobody has looked."""
    with pytest.raises(ConflictError, match="Look at the clock of n2"):
        await call(three, lambda client: client.accept_time(), 1, is_committed=False)
    assert not [one for one in three.n2.machine.state.audit.values() if "clock" in one.summary]


@BOTH
async def test_the_time_is_accepted_once(three: Bench, call: Any) -> None:
    """The clock of the successor is not accepted beside it."""
    await call(three, lambda client: client.accept_time(), 1, is_committed=True)
    said = [one.summary for one in three.n2.machine.state.audit.values() if "clock" in one.summary]
    assert len(said) == 1
    assert "n1" in said[0]
