"""`raftcron doctor` names what is wrong, and `raftcron completion` completes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import call


def view(**fields: Any) -> dict[str, Any]:
    member = {
        "role": "follower",
        "standing": "voter",
        "alive": True,
        "applied_index": 9,
        "clock_offset_ms": 1,
        "version": "1",
    }
    members = [member | {"name": name} for name in ("n1", "n2", "n3")]
    return {"leader": "n1", "epoch": 2, "commit_index": 9, "members": members, "digests": [[9, "aa"]]} | fields


async def test_a_cluster_that_is_well(make_node: Callable[[], Any]) -> None:
    """Exit code 0, and a line for each thing that was looked at."""
    nodes = [await make_node() for _ in range(2)]
    for place, node in enumerate(nodes):
        node.answers(200, view(), **{"Raftcron-Node": f"n{place + 1}"})
    result = await call("doctor", addr=",".join(node.address for node in nodes))
    assert result.exit_code == 0, result.output
    assert "error" not in result.stdout
    assert "equal at 1 indices" in result.stdout


async def test_a_cluster_that_is_not(make_node: Callable[[], Any], nowhere: str) -> None:
    """Each fault has its line and what to do; exit code 1."""
    nodes = [await make_node() for _ in range(2)]
    sick = view()["members"]
    sick[1] |= {"alive": False}
    sick[2] |= {"clock_offset_ms": -4_000, "version": "2"}
    nodes[0].answers(200, view(members=sick), **{"Raftcron-Node": "n1"})
    nodes[1].answers(200, view(digests=[[9, "bb"]], leader="n2", members=sick), **{"Raftcron-Node": "n2"})
    result = await call("doctor", addr=",".join([nowhere, *(node.address for node in nodes)]))
    assert result.exit_code == 1
    for words in (
        "does not answer",
        "is not heard",
        "ms off",
        "differ at index 9",
        "nodes name n1, n2",
        "finish the upgrade",
    ):
        assert words in result.stdout, words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion(shell: str) -> None:
    """A script that names the command; and the completion itself knows the nouns."""
    script = await call("completion", shell)
    assert script.exit_code == 0
    assert "_RAFTCRON_COMPLETE" in script.stdout
