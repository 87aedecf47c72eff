"""What is completed: names that the cluster knows, and nothing where it does not answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cli.conftest import StandIn, call

JOBS = {"items": [{"name": "backup-db"}, {"name": "backup-web"}, {"name": "old-backup"}], "next_cursor": None}
RUNS = {"items": [{"id": "r1", "job": "backup-db", "state": "running"}], "next_cursor": None}


async def completed(words: Sequence[str], addr: str | None) -> list[str]:
    result = await call(
        addr=addr,
        _RAFTCRON_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(("raftcron", *words)),
        COMP_CWORD=str(len(words)),
        called_as="raftcron",
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize(
    "words", [("job", "get", "back"), ("job", "run", "--wait", "back"), ("run", "list", "--job", "back")]
)
async def test_names_of_jobs(node: StandIn, words: tuple[str, ...]) -> None:
    """Asked for in any node's own state, so that it works without a leader."""
    node.answers(200, JOBS)
    assert await completed(words, node.address) == ["backup-db", "backup-web"]
    assert node.asked[0][1] == "/v1/jobs?consistency=stale&q=back&limit=200"


async def test_runs_and_nodes(node: StandIn) -> None:
    """Whatever a command takes by name."""
    node.answers(200, RUNS)
    assert await completed(("run", "logs", "-f", ""), node.address) == ["r1"]
    node.answers(200, {"members": [{"name": "n1", "role": "leader"}, {"name": "n2", "role": "follower"}]})
    assert await completed(("cluster", "drain", ""), node.address) == ["n1", "n2"]


async def test_the_address_on_the_line_counts(node: StandIn) -> None:
    """`--addr` is on the line that is being typed."""
    node.answers(200, JOBS)
    assert await completed(("job", "get", "--addr", node.address, "o"), None) == ["old-backup"]


async def test_no_answer_completes_nothing(nowhere: str, node: StandIn) -> None:
    """Neither an error nor a traceback lands in the line that is being typed."""
    assert await completed(("job", "get", ""), nowhere) == []
    node.refuses(401, "unauthorized", "no")
    assert await completed(("job", "get", ""), node.address) == []
    assert await completed(("run", "list", "--state", "run"), nowhere) == ["running"]
