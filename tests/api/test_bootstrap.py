"""The admin token that an operator makes beside a node: left in its data directory, taken through the log."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from raftcron.core.access import known
from raftcron.errors import InvalidError
from raftcron.runtime.bootstrap import REQUEST_FILE, Bootstrap, ask_for_admin
from tests.api.bench import Bench, BenchNode


def beside(node: BenchNode, directory: Path) -> Bootstrap:
    return Bootstrap(
        node=node.name, directory=directory, machine=node.machine, log=node.log, proposer=node.context.proposer
    )


async def taken(*around: Bootstrap) -> None:
    """Each looks twice: once to tell, once to see that it is done."""
    for _ in range(2):
        for one in around:
            one.look()
            await asyncio.sleep(0)  # messages arrive with the loop's next turn
        for one in around:
            if one._taking is not None:
                await one._taking
    for one in around:
        one.look()


async def test_the_leader_takes_it(one: Bench, tmp_path: Path) -> None:
    """The text proves an admin, nothing on disk does, and the trail says which node it was."""
    text = ask_for_admin(tmp_path, "admin", os.urandom)
    request = tmp_path / REQUEST_FILE
    assert request.stat().st_mode & 0o777 == 0o600
    assert text.rpartition(".")[2] not in request.read_text()
    await taken(beside(one.n1, tmp_path))
    assert not request.exists()
    who = known(one.n1.machine.state.tokens, text)
    assert who is not None
    assert (who.role, who.prefix) == ("admin", "")
    (item,) = one.n1.machine.state.audit.values()
    assert (item.principal, item.node, item.summary) == ("node:n1", "n1", "token admin created")


async def test_a_follower_has_the_leader_take_it(two: Bench, tmp_path: Path) -> None:
    """Over the connection of peers, which has proved the cluster secret."""
    text = ask_for_admin(tmp_path / "", "ops", os.urandom)
    leader, follower = beside(two.n1, tmp_path / "elsewhere"), beside(two.n2, tmp_path)
    for _ in range(3):
        await taken(follower, leader)
    assert not (tmp_path / REQUEST_FILE).exists()
    assert known(two.n1.machine.state.tokens, text) is not None
    assert next(iter(two.n1.machine.state.audit.values())).principal == "node:n2"
    assert len(two.n1.machine.state.audit) == 1, "told again and again, and done once"


async def test_a_lost_one_is_replaced_in_the_same_way(one: Bench, tmp_path: Path) -> None:
    """The former is worth nothing from then on."""
    node = beside(one.n1, tmp_path)
    former = ask_for_admin(tmp_path, "admin", os.urandom)
    await taken(node)
    text = ask_for_admin(tmp_path, "admin", os.urandom)
    await taken(node)
    assert known(one.n1.machine.state.tokens, text) is not None
    assert known(one.n1.machine.state.tokens, former) is None


async def test_without_a_quorum_it_waits(one: Bench, tmp_path: Path) -> None:
    """The request stays where it is until there is somebody to take it."""
    node = beside(one.n1, tmp_path)
    text = ask_for_admin(tmp_path, "admin", os.urandom)
    one.cluster.depose()
    await taken(node)
    assert (tmp_path / REQUEST_FILE).exists()
    one.cluster.elect("n1")
    await taken(node)
    assert known(one.n1.machine.state.tokens, text) is not None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"name": "a/b", "hash": "00"}', '{"name": "a", "hash": "00"}']
)
async def test_nonsense_is_not_taken(one: Bench, tmp_path: Path, content: str) -> None:
    """Nor what others may write, a link, or a directory."""
    (tmp_path / REQUEST_FILE).write_text(content)
    await taken(beside(one.n1, tmp_path))
    assert not one.n1.machine.state.tokens


async def test_only_the_nodes_user_may_ask(one: Bench, tmp_path: Path) -> None:
    """A file that others may write, a link and a directory are refused."""
    good = json.dumps({"name": "a", "hash": "00" * 32})
    request = tmp_path / REQUEST_FILE
    request.write_text(good)
    request.chmod(0o666)
    await taken(beside(one.n1, tmp_path))
    request.unlink()
    (tmp_path / "other").write_text(good)
    request.symlink_to(tmp_path / "other")
    await taken(beside(one.n1, tmp_path))
    request.unlink()
    request.mkdir()
    await taken(beside(one.n1, tmp_path))
    assert not one.n1.machine.state.tokens


def test_a_name_that_no_token_can_have_is_refused(tmp_path: Path) -> None:
    for name in ("anonymous", "a/b", ""):
        with pytest.raises(InvalidError):
            ask_for_admin(tmp_path, name, os.urandom)
