"""`raftcron schedule explain` asks no node; `raftcron job next` asks one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.cli.conftest import StandIn, call


async def explain(*args: str) -> Any:
    return await call("schedule", "explain", *args, addr="http://127.0.0.1:1")


async def test_an_expression_in_words() -> None:
    """A sentence, the next fires on the wall and in UTC, and what may surprise."""
    result = await explain(
        "30 2 * * *", "--timezone", "Europe/Berlin", "--from", "2026-03-28T12:00:00Z", "--count", "2"
    )
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "At 02:30, every day, Europe/Berlin time."
    assert lines[2:5] == [
        "DAY  LOCAL                      UTC",
        "Sun  2026-03-29T03:00:00+02:00  2026-03-29T01:00:00Z",
        "Mon  2026-03-30T02:30:00+02:00  2026-03-30T00:30:00Z",
    ]
    assert lines[6].startswith("dst_gap: on 2026-03-29 the clock in Europe/Berlin jumps from 02:00 to 03:00")
    assert result.stderr == ""


async def test_as_json() -> None:
    """The same fields as the HTTP interface's."""
    result = await explain(
        "H H * * *", "--hash-key", "backup-db", "--from", "2026-01-01T00:00:00+01:00", "--count", "1", "-o", "json"
    )
    assert json.loads(result.stdout) == {
        "description": "at 08:55, every day, UTC, with H drawn from `backup-db`",
        "timezone": "UTC",
        "from": "2025-12-31T23:00:00Z",
        "next": ["2026-01-01T08:55:00Z"],
        "local": ["2026-01-01T08:55:00+00:00"],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("args", "utc"),
    [
        (["30 2 29 3 *", "--gap", "skip"], "2027-03-29T00:30:00Z"),
        (["30 2 25 10 *", "--fold", "last"], "2026-10-25T01:30:00Z"),
        (["@every 90m"], "2026-01-01T01:30:00Z"),
    ],
    ids=str,
)
async def test_what_may_be_said(args: list[str], utc: str) -> None:
    """What happens at jumps of the clock, and `@every` counted from --from."""
    fixed = ("--timezone", "Europe/Berlin", "--from", "2026-01-01T00:00:00Z", "--count", "1", "-o", "json")
    assert json.loads((await explain(*args, *fixed)).stdout)["next"] == [utc]


@pytest.mark.parametrize(
    ("expression", "stderr"),
    [
        (
            "5,61 * * * *",
            "raftcron: minute field `5,61`: `61` is out of range\n  5,61 * * * *\n    ^\n  use 0 to 59\n",
        ),
        (
            "\t0 0 32 * *",
            "raftcron: day-of-month field `32`: `32` is out of range\n   0 0 32 * *\n       ^\n  use 1 to 31\n",
        ),
        (
            "@every 5m from noon",
            "raftcron: after `from`: 'noon' is not an RFC 3339 instant: write it like 2026-03-29T01:30:00Z or with "
            "+02:00\n  @every 5m from noon\n                 ^\n  or `last_end`, the end of the last run\n",
        ),
    ],
)
async def test_a_caret_shows_what_is_wrong(expression: str, stderr: str) -> None:
    """Exit code 2; the fault, the place and what would be right on stderr, nothing on stdout."""
    result = await explain(expression)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", stderr)


async def test_what_cannot_be_used_ends_with_2() -> None:
    """A text as a whole has no caret; zones, instants and counts are checked too."""
    for args, words in (
        (["* * * *"], "5 fields (minute hour day-of-month month day-of-week)"),
        (["x" * 257], "has 257 characters"),
        (["@daily", "--timezone", "europe/berlin"], "did you mean Europe/Berlin?"),
        (["@daily", "--from", "today"], "is not an RFC 3339 instant"),
        (["@daily", "--count", "1001"], "0<=x<=1000"),
        ([], "Missing argument 'EXPRESSION'"),
    ):
        result = await explain(*args)
        assert (result.exit_code, result.stdout) == (2, ""), args
        assert words in result.stderr


async def test_what_never_fires_says_so() -> None:
    """No table, exit code 0: it was explained."""
    result = await explain("0 0 30 2 *")
    assert result.exit_code == 0
    assert "Nothing comes." in result.stdout
    assert "never_fires: " in result.stdout
    assert "DAY" not in result.stdout


async def test_the_coming_fires_of_a_job(node: StandIn) -> None:
    """A table with notes, or what the node said."""
    item = {
        "scheduled_time": "2027-03-28T01:00:00Z",
        "due_at": "2027-03-28T01:00:07Z",
        "local": "2027-03-28T03:00:00+02:00",
        "notes": [{"code": "dst_gap", "message": "the clock jumps"}],
    }
    for _ in range(2):
        node.answers(200, {"items": [item]})
    table = await call("job", "next", "a", addr=node.address)
    heading, row = table.stdout.splitlines()
    assert heading.split() == ["SCHEDULED", "DUE", "LOCAL", "NOTES"]
    assert row.split(maxsplit=3) == [item["scheduled_time"], item["due_at"], item["local"], "the clock jumps"]
    whole = await call("job", "next", "a", "--count", "3", "-o", "json", addr=node.address)
    assert json.loads(whole.stdout) == {"items": [item]}
    assert [path for _, path, _ in node.asked] == ["/v1/jobs/a/next?count=10", "/v1/jobs/a/next?count=3"]


async def test_the_forms_of_an_answer() -> None:
    """YAML is the JSON, wide the table, and name the instants alone."""
    args = ("0 12 * * *", "--from", "2026-01-01T00:00:00Z", "--count", "2")
    assert (await explain(*args, "-o", "name")).stdout == "2026-01-01T12:00:00Z\n2026-01-02T12:00:00Z\n"
    said = [(await explain(*args, "-o", form)).stdout for form in ("json", "yaml", "table", "wide")]
    assert json.loads(said[0]) == yaml.safe_load(said[1])
    assert said[2] == said[3]
