"""Tokens and the audit trail on the command line."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from raftcron.cli import audit as cli_audit
from raftcron.client import Client
from raftcron.core import commands as c
from raftcron.core.apply import audit as recording
from raftcron.core.audit import CHAIN
from tests.api.bench import Bench, bench
from tests.cli.conftest import StandIn, call
from tests.unit.machine import Machine


def answer(count: int) -> dict[str, Any]:
    """What a node with so many notes answers to GET /v1/audit."""
    from raftcron.api.audit import chain_view, item_view

    machine = Machine()
    machine.lead()
    for number in range(count):
        machine.write(c.Note(f"note {number}"), origin=c.Origin("ci", "n1", "", "POST", "/v1/x"))
    state = machine.state
    items = [item_view(item) for item in state.audit.values()][::-1]
    return {"items": items, "chain": chain_view(state.audit_chain[CHAIN]), "next_cursor": None, "total": count}


def saved(folder: Path, content: Any) -> str:
    file = folder / "audit.json"
    file.write_text(json.dumps(content))
    return str(file)


async def test_a_whole_trail_is_whole(tmp_path: Path) -> None:
    result = await call("audit", "verify", "--file", saved(tmp_path, answer(3)))
    assert (result.exit_code, result.stdout) == (0, "")


async def test_what_was_verified_is_printed_as_data(tmp_path: Path) -> None:
    """It holds what a receipt does; of a trail that is not whole nothing is printed."""
    trail = answer(3)
    file = saved(tmp_path, trail)
    result = await call("audit", "verify", "--file", file, "-o", "json")
    head = trail["chain"]["head"]
    assert json.loads(result.stdout) == {"items": 3, "count": 3, "dropped": 0, "head": head}
    receipt = tmp_path / "receipt"
    receipt.write_text(result.stdout)
    again = await call("audit", "verify", "--file", file, "--receipt", str(receipt), "-o", "name")
    assert (again.exit_code, again.stdout) == (0, head + "\n")
    trail["items"][1]["summary"] = "something else"
    broken = await call("audit", "verify", "--file", saved(tmp_path, trail), "-o", "json")
    assert (broken.exit_code, broken.stdout) == (1, "")


@pytest.mark.parametrize("field", ["principal", "summary", "at", "remote"])
async def test_a_changed_item_is_found(tmp_path: Path, field: str) -> None:
    trail = answer(3)
    trail["items"][1][field] = "2020-01-01T00:00:00Z"
    result = await call("audit", "verify", "--file", saved(tmp_path, trail))
    assert result.exit_code == 1
    assert "index 3" in result.output


async def test_a_removed_tail_is_found(tmp_path: Path) -> None:
    """By the chain's own count and head; and, where those were made to fit, by the receipt of an earlier look."""
    receipt = str(tmp_path / "receipt")
    assert (await call("audit", "verify", "--file", saved(tmp_path, answer(3)), "--receipt", receipt)).exit_code == 0
    cut = answer(3)
    del cut["items"][0]
    assert (await call("audit", "verify", "--file", saved(tmp_path, cut))).exit_code == 1
    forged = saved(tmp_path, answer(2))
    assert (await call("audit", "verify", "--file", forged)).exit_code == 0
    result = await call("audit", "verify", "--file", forged, "--receipt", receipt)
    assert result.exit_code == 1
    assert "a tail is gone" in result.output


async def test_what_was_seen_may_not_change(tmp_path: Path) -> None:
    """A chain that was made anew, and is longer, is not the one that the receipt names."""
    receipt = str(tmp_path / "receipt")
    other = answer(3)
    (tmp_path / "receipt").write_text(json.dumps({"count": 2, "head": "00" * 32}))
    result = await call("audit", "verify", "--file", saved(tmp_path, other), "--receipt", receipt)
    assert result.exit_code == 1
    assert "item 2" in result.output


async def test_a_receipt_takes_the_place_of_files_alone(tmp_path: Path) -> None:
    """A link stays and leads to it; a pipe is neither waited for nor replaced; a folder that is not there is named."""
    link, target, pipe, file = tmp_path / "link", tmp_path / "kept", tmp_path / "pipe", saved(tmp_path, answer(3))
    link.symlink_to(target)
    os.mkfifo(pipe)
    for _ in range(2):
        assert (await call("audit", "verify", "--file", file, "--receipt", str(link))).exit_code == 0
        assert link.is_symlink()
        assert json.loads(target.read_text())["count"] == 3
    for receipt, told in ((pipe, "is no regular file"), (tmp_path / "no" / "where", "cannot be written")):
        result = await call("audit", "verify", "--file", file, "--receipt", str(receipt))
        assert result.exit_code == 2, result.output
        assert f"{receipt}: {told}" in result.stderr
    assert pipe.is_fifo()


async def noted(made: Bench, count: int) -> None:
    for number in range(count):
        (await made.put(f"job-{number}")).expect(200, 201)


async def test_a_nodes_trail_is_verified_over_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page to the oldest that is kept; once the oldest leave by the bound it is whole all the same."""
    monkeypatch.setattr(cli_audit, "PAGE", 3)
    receipt = ("--receipt", str(tmp_path / "receipt"), "-o", "json")
    async with bench(1) as made:
        await noted(made, 7)
        first = json.loads((await call("audit", "verify", *receipt, addr=made.n1.url)).stdout)
        assert first["dropped"] == 0
        assert first["items"] == first["count"] >= 7
        monkeypatch.setattr(recording, "AUDIT_KEPT", 8)
        await noted(made, 7)
        second = json.loads((await call("audit", "verify", *receipt, addr=made.n1.url)).stdout)
        count = first["count"] + 7
        assert second == {"items": 8, "count": count, "dropped": count - 8, "head": second["head"]}
        await noted(made, 9)  # what the receipt names has left meanwhile
        assert (await call("audit", "verify", *receipt, addr=made.n1.url)).exit_code == 0
        state = made.n1.machine.state
        index, item = list(state.audit.items())[2]  # of the oldest page
        state.audit[index] = structs.replace(item, summary="something else")
        result = await call("audit", "verify", *receipt, addr=made.n1.url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"index {index}" in result.stderr


async def test_what_leaves_between_two_pages_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that are written meanwhile push out the oldest before their page is asked for."""
    monkeypatch.setattr(cli_audit, "PAGE", 3)
    monkeypatch.setattr(recording, "AUDIT_KEPT", 8)
    async with bench(1) as made:
        await noted(made, 10)
        loop = asyncio.get_running_loop()
        ask, asked = Client.request, 0

        def request(self: Client, *words: Any, **more: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 2:
                asyncio.run_coroutine_threadsafe(noted(made, 2), loop).result(60)
            return ask(self, *words, **more)

        monkeypatch.setattr(Client, "request", request)
        result = await call("audit", "verify", "-o", "json", addr=made.n1.url)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["items"] == 6
        assert asked > 1


async def test_a_saved_trail_whose_oldest_have_left_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain knows the hash before the oldest; without it, or with one dropped too many, it is not."""
    monkeypatch.setattr(recording, "AUDIT_KEPT", 2)
    trail = answer(5)
    assert trail["chain"]["dropped"] > 0
    assert (await call("audit", "verify", "--file", saved(tmp_path, trail))).exit_code == 0
    for wrong in ({"before": "00" * 32}, {"dropped": trail["chain"]["dropped"] - 1}):
        file = saved(tmp_path, trail | {"chain": trail["chain"] | wrong})
        assert (await call("audit", "verify", "--file", file)).exit_code == 1


async def test_a_token_comes_from_a_file_or_the_environment(node: StandIn, tmp_path: Path) -> None:
    """--token-file before RAFTCRON_TOKEN; what is no token is said before anything is sent."""
    file = tmp_path / "token"
    file.write_text("rct.ci.abc\n")
    for more, shown in (((), "rct.env.abc"), (("--token-file", str(file)), "rct.ci.abc")):
        node.answers(200, {"items": [], "next_cursor": None})
        assert (await call("token", "list", *more, addr=node.address, RAFTCRON_TOKEN="rct.env.abc")).exit_code == 0
        assert node.headers[-1]["authorization"] == f"Bearer {shown}"
    file.write_text("two words\n")
    result = await call("token", "list", "--token-file", str(file), addr=node.address)
    assert result.exit_code == 2
    assert "holds no token" in result.output
