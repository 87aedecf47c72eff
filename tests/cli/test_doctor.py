"""`raftcron doctor` names what is wrong, and `raftcron completion` completes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftcron import __version__
from tests.cli.conftest import StandIn, call


def view(**fields: Any) -> dict[str, Any]:
    member = {
        "role": "follower",
        "standing": "voter",
        "alive": True,
        "applied_index": 9,
        "clock_offset_ms": 1,
        "version": __version__,
    }
    members = [member | {"name": name} for name in ("n1", "n2", "n3")]
    return {"leader": "n1", "epoch": 2, "commit_index": 9, "members": members, "digests": [[9, "aa"]]} | fields


def says(node: StandIn, name: str, cluster: dict[str, Any], **metrics: float) -> None:
    """What a node is asked for: the cluster, and its numbers."""
    node.answers(200, cluster, **{"Raftcron-Node": name})
    numbers = {"conservation_difference": 0.0} | metrics
    node.answers(200, "".join(f"# HELP raftcron_{key} words\nraftcron_{key} {numbers[key]}\n" for key in numbers))


async def test_a_cluster_that_is_well(make_node: Callable[[], Any]) -> None:
    """Exit code 0, and a line for each thing that was looked at."""
    nodes = [await make_node() for _ in range(2)]
    for place, node in enumerate(nodes):
        says(node, f"n{place + 1}", view())
    result = await call("doctor", addr=",".join(node.address for node in nodes))
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in result.stdout.splitlines()} == {"ok"}
    assert "equal at 1 indices" in result.stdout
    assert "no scheduled time is missing" in result.stdout
    assert result.stderr == "raftcron: all is well\n"


async def test_members_that_were_not_named_are_asked_too(make_node: Callable[[], Any]) -> None:
    """One address is enough to look at all."""
    named, other = await make_node(), await make_node()
    members = view()["members"]
    members[1] |= {"http": other.address.removeprefix("http://")}
    says(named, "n1", view(members=members))
    says(other, "n2", view(members=members), conservation_difference=1)
    result = await call("doctor", addr=named.address)
    assert result.exit_code == 1
    assert "n2 counted other times than were decided" in result.stdout
    assert result.stderr == "raftcron: 1 error\n"


async def test_nobody_there(nowhere: str) -> None:
    """The first thing to do is said; exit code 1."""
    result = await call("doctor", addr=nowhere)
    assert (result.exit_code, result.stderr) == (1, "raftcron: 2 errors\n")
    assert "are they running" in result.stdout


async def test_a_cluster_that_is_not(make_node: Callable[[], Any], nowhere: str) -> None:
    """Each fault has its line and what to do; exit code 1."""
    nodes = [await make_node() for _ in range(2)]
    sick = view()["members"]
    sick[1] |= {"alive": False}
    sick[2] |= {"clock_offset_ms": -4_000, "version": "2"}
    sick.append(sick[0] | {"name": "n4", "alive": False})
    sick[0] |= {"drained": True}
    says(nodes[0], "n1", view(members=sick), loop_stall_seconds_max=3.5)
    says(nodes[1], "n2", view(digests=[[9, "bb"]], leader="n2", members=sick, clock_untrusted=True))
    result = await call("doctor", addr=",".join([nowhere, *(node.address for node in nodes)]))
    assert result.exit_code == 1
    for words in (
        "does not answer",
        "`raftcron cluster replace n4`",
        "the others do not hear it",
        "`raftcron cluster drain n1 --undo`",
        "stood still for 3.5 s",
        "`raftcron cluster accept-time`",
        "4 voters stand no more failures than 3",
        "ms off",
        "differ at index 9",
        "nodes name n1, n2",
        "finish the upgrade",
    ):
        assert words in result.stdout, words


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, None),
        (2, "both voters are needed for every write: the loss of either stops the cluster"),
        (3, None),
        (4, "4 voters stand no more failures than 3"),
    ],
)
async def test_what_an_even_number_of_voters_stands(node: StandIn, count: int, told: str | None) -> None:
    """Two stand no failure at all, more no more than one fewer; it says how they become odd."""
    members = [view()["members"][0] | {"name": f"n{number}"} for number in range(1, count + 1)]
    says(node, "n1", view(members=members))
    result = await call("doctor", addr=node.address)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stdout.splitlines() if line.startswith("warning")]
    assert len(warnings) == (told is not None), warnings
    assert told is None or (told in warnings[0] and "`raftcron cluster add NAME`" in warnings[0])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion(shell: str) -> None:
    """A script that names the command; and the completion itself knows the nouns."""
    script = await call("completion", shell)
    assert script.exit_code == 0
    assert "_RAFTCRON_COMPLETE" in script.stdout
