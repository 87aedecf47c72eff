"""Tables fit the terminal, and nothing is cut where no terminal shows it."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from raftcron.cli import main, printing
from raftcron.cli.root import Failure
from tests.cli.conftest import StandIn, call

RUN = {
    "id": "9-1795955775000",
    "job": "nightly-backup-of-the-production-database-in-frankfurt",
    "scheduled_time": "2026-11-29T12:36:15Z",
    "state": "succeeded",
    "reason": None,
    "attempt": 1,
    "node": "n1",
    "started_at": "2026-11-29T12:36:15.001Z",
    "finished_at": "2026-11-29T12:36:15.340Z",
}


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int | None) -> None:
    monkeypatch.setattr(printing, "terminal_width", lambda: columns)


async def listed(node: StandIn, *more: str) -> list[str]:
    node.answers(200, {"items": [RUN, RUN | {"job": "b"}], "next_cursor": None, "total": None})
    result = await call("run", "list", *more, addr=node.address)
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("columns", [80, 100, 132, 200])
async def test_a_line_fits_and_says_which_run_and_how_it_went(
    node: StandIn, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Id, scheduled time and state are whole on any usual terminal; what is less telling gives way."""
    on_terminal(monkeypatch, columns)
    lines = await listed(node)
    assert max(map(len, lines)) <= columns
    for word in ("9-1795955775000", "2026-11-29T12:36:15Z", "succeeded"):
        assert word in lines[1], word
    assert ("FINISHED" in lines[0]) == (columns >= 132)


async def test_a_very_narrow_terminal_cuts_what_it_must(node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id goes last."""
    on_terminal(monkeypatch, 50)
    lines = await listed(node)
    assert lines[1].startswith("9-1795955775000  ")
    assert "…" in lines[1]


@pytest.mark.parametrize("more", [(), ("-o", "wide")])
async def test_a_pipe_gets_all(node: StandIn, more: tuple[str, ...]) -> None:
    """No terminal, no cut: what is searched for can be found."""
    lines = await listed(node, *more)
    assert RUN["job"] in lines[1]
    assert "…" not in "".join(lines)


async def test_only_a_state_has_a_colour(node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is called like a state is no state; NO_COLOR is heeded."""
    styled = []
    monkeypatch.setattr(printing.click, "style", lambda text, **how: styled.append((text, how)) or text)
    node.answers(200, {"items": [RUN | {"job": "failed"}], "next_cursor": None, "total": None})
    await call("run", "list", addr=node.address)
    assert styled == [("succeeded", {"fg": "green"})]
    node.answers(200, {"items": [RUN], "next_cursor": None, "total": None})
    await call("run", "list", addr=node.address, NO_COLOR="1")
    assert len(styled) == 1


JOB: dict[str, Any] = {
    "name": "a",
    "schedule": ["@daily", "0 12 * * *"],
    "executor": {"type": "shell", "command": "echo hello; exit 1", "env": {"A": "b"}},
    "retry": {"max_attempts": None, "on": ["failed", "lost"]},
    "start_deadline": None,
    "paused": False,
    "stats": {"fired": 0, "durations_ms": {"p50": 3}},
    "output_tail": "one\n  two\n",
}


async def test_one_thing_is_a_line_a_field(node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects as key=value, lists a line each, texts line by line, and nothing of what is empty."""
    on_terminal(monkeypatch, 40)
    node.answers(200, JOB)
    result = await call("job", "get", "a", addr=node.address)
    assert result.stdout.splitlines() == [
        "name                a",
        "schedule            @daily",
        "                    0 12 * * *",
        'executor            type=shell command="echo hello; exit 1"',
        "executor.env        A=b",
        "retry               on=failed,lost",
        "paused              false",
        "stats               fired=0",
        "stats.durations_ms  p50=3",
        "output_tail         one",
        "                      two",
    ]


async def test_wide_leaves_nothing_out(node: StandIn) -> None:
    """Also what is empty has its line."""
    node.answers(200, JOB)
    result = await call("job", "get", "a", "-o", "wide", addr=node.address)
    assert "start_deadline      -" in result.stdout.splitlines()
    assert "max_attempts=-" in result.stdout


async def test_help_shows_whole_sentences() -> None:
    """No command's sentence ends in the middle."""
    for noun in ("job", "run", "cluster", "token", "audit", "import", "schedule"):
        result = await call(noun, "--help")
        assert "..." not in result.stdout.partition("Commands:")[2], noun


async def test_data_is_data_in_each_form(node: StandIn) -> None:
    """json and yaml hold the answer itself."""
    node.answers(200, JOB)
    assert json.loads((await call("job", "get", "a", "-o", "json", addr=node.address)).stdout) == JOB


# ---- bars ------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What stderr is where somebody watches."""

    def isatty(self) -> bool:
        return True

    async def shows(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text not in self.getvalue():
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("more", "words"), [((), "deleting what is left out"), (("--dry-run",), "looking for what is left out")]
)
async def test_a_bar_moves_while_what_is_left_out_is_deleted(
    node: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    """While the node works and has not answered yet: the seconds pass."""
    terminal, file = Terminal(), tmp_path / "jobs.json"
    file.write_text('[{"name": "a"}, {"name": "b"}]')
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(printing, "TICK_SECONDS", 0.3)
    node.holds()
    line = ["job", "apply", "-f", str(file), "--prune", *more, "--addr", node.address]
    applying = asyncio.create_task(asyncio.to_thread(main, line, standalone_mode=False))
    await node.held.wait()
    for seconds in (1, 2):
        await terminal.shows(f"{words}, {seconds} s")
    assert node.asked[0][2] == [{"name": "a"}, {"name": "b"}]
    node.lets_go()
    with pytest.raises(Failure):
        await applying


def test_a_bar_goes_back_where_all_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node may have to be asked: the bar shows what that one has got."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with printing.sending(100, "sending", "waiting") as told:
        for sent, label, percent in (
            (50, "sending", 50),
            (100, "waiting", 100),
            (0, "sending", 0),
            (30, "sending", 30),
        ):
            told(sent)
            last = terminal.getvalue().rpartition("\r")[2]
            assert label in last
            assert f" {percent}%" in last


def test_a_bar_that_nobody_sees_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with printing.sending(0, "sending", "waiting") as told:
        told(0)
    assert written.getvalue() == ""
