"""`POST /v1/schedules:explain`: what is asked, answered and refused, and that the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.bench import Bench

PATH = "/v1/schedules:explain"
DATA = Path(__file__).parent.parent / "schedules" / "data"
SPRING = "2026-03-28T12:00:00Z"
STEP = 8  # of the rows of a case file each so many-th is asked; tests/schedules asks all of them without HTTP


async def test_an_explanation(one: Bench) -> None:
    """Words, the next instants in UTC and on the wall, and notes with the coming jumps of the clock."""
    body = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "from": SPRING, "count": 2}
    answer = (await one.ask("POST", PATH, body)).expect(200).json
    notes = answer.pop("notes")
    assert answer == {
        "description": "at 02:30, every day, Europe/Berlin time",
        "timezone": "Europe/Berlin",
        "from": SPRING,
        "next": ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        "local": ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
    }
    assert [note["code"] for note in notes] == ["dst_gap", "dst_fold", "dst_gap"]
    assert "on 2026-03-29 the clock in Europe/Berlin jumps from 02:00 to 03:00" in notes[0]["message"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": "@hourly"}, ["2027-01-15T09:00:00Z", "2027-01-15T10:00:00Z"]),
        ({"schedule": "@hourly", "from": None, "timezone": None, "dst": None, "hash_key": None}, None),
        ({"schedule": "@every 90s", "from": "2026-01-01T00:00:00+01:00"}, "2025-12-31T23:01:30Z"),
        ({"schedule": "@every 90s", "from": "2026-01-01T00:00:00.25Z"}, "2026-01-01T00:01:30.250Z"),
        ({"schedule": "@every 1h from 2026-01-01T00:10:00Z", "from": "2026-01-01T05:00:00Z"}, "2026-01-01T05:10:00Z"),
        ({"schedule": "@every 1h from last_end", "from": "2026-01-01T05:00:00Z"}, "2026-01-01T06:00:00Z"),
        ({"schedule": "  0\t0 * * *  ", "from": SPRING}, "2026-03-29T00:00:00Z"),
        ({"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "skip"}, "from": SPRING},
         "2026-03-30T00:30:00Z"),
        ({"schedule": "H H * * *", "hash_key": "backup-db", "from": SPRING}, "2026-03-29T08:55:00Z"),
        ({"schedule": ["0 0 * * *", "0 12 * * *"], "from": SPRING}, "2026-03-29T00:00:00Z"),
        ({"schedule": "@every 1h", "timezone": "Pacific/Kiritimati", "from": "9999-12-31T20:00:00Z"},
         "9999-12-31T21:00:00Z"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
async def test_what_may_be_asked(one: Bench, fields: dict[str, Any], expected: Any) -> None:
    """Each field, null as if it were left out, and `@every` anchored at `from`, which is now unless it is said."""
    answer = (await one.ask("POST", PATH, {"count": 2, **fields})).expect(200).json
    if isinstance(expected, str):
        assert answer["next"][0] == expected
    else:
        assert answer["next"] == (expected or ["2027-01-15T09:00:00Z", "2027-01-15T10:00:00Z"])


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("*/7 * * * *", ["uneven_step"]),
        ("0 0 13 * 5", ["dom_and_dow"]),
        ("0 0 31 * *", ["short_months"]),
        ("* * * * * *", ["six_fields", "many_fires"]),
        ("0 0 30 2 *", ["never_fires"]),
        ("@at 2020-01-01T00:00:00Z", ["never_fires"]),
        ("30 0 29 3 *", ["dst_gap"]),
        ("30 0 25 10 *", ["dst_fold"]),
        ("*/5 * * * *", []),
        ("@manual", []),
        (["0 0 31 * *", "*/7 * * * *"], ["short_months", "uneven_step"]),
    ],
    ids=str,
)
async def test_notes(one: Bench, text: Any, codes: list[str]) -> None:
    """Each surprise under its code; of several schedules each note says which one it is about."""
    body = {"schedule": text, "from": "2026-01-01T00:00:00Z", "timezone": "Atlantic/Azores", "count": 0}
    answer = (await one.ask("POST", PATH, body)).expect(200).json
    assert [note["code"] for note in answer["notes"]] == codes
    assert answer["next"] == answer["local"] == []
    if isinstance(text, list):
        assert [note["message"].split(":")[0] for note in answer["notes"]] == [f"`{one}`" for one in text]


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({}, "/schedule", "is missing"),
        ({"schedule": None}, "/schedule", "is missing"),
        ({"schedule": 5}, "/schedule", "must be a string such as `*/5 * * * *`, not a number"),
        ({"schedule": ["@daily", None]}, "/schedule/1", "not null"),
        ({"schedule": []}, "/schedule", "has 0 schedules, allowed are 1 to 16"),
        ({"schedule": ["@daily"] * 17}, "/schedule", "has 17 schedules"),
        ({"schedule": ["@daily", "5,x * * * *"]}, "/schedule/1", "minute field `5,X`: `X` is neither a number"),
        ({"schedule": "5,61 * * * *"}, "/schedule", "`61` is out of range (at position 2); use 0 to 59"),
        ({"schedule": "* * * *"}, "/schedule", "5 fields (minute hour day-of-month month day-of-week), 6 (seconds"),
        ({"schedule": "x" * 257}, "/schedule", "has 257 characters; use at most 256"),
        ({"schedule": "@reboot"}, "/schedule", "@reboot is refused: a cluster does not boot"),
        ({"schedule": "R * * * *"}, "/schedule", "would differ from node to node"),
        ({"schedule": "@daily", "timezone": "europe/berlin"}, "/timezone", "did you mean Europe/Berlin?"),
        ({"schedule": "@daily", "timezone": "Mars/Olympus"}, "/timezone", "is not known to tz data"),
        ({"schedule": "@daily", "timezone": 1}, "/timezone", "must be a string"),
        ({"schedule": "@daily", "from": "2026-01-01T00:00:00"}, "/from", "is not an RFC 3339 instant"),
        ({"schedule": "@daily", "from": 1_800_000_000}, "/from", "is not an RFC 3339 instant"),
        ({"schedule": "@daily", "count": -1}, "/count", "allowed are 0 to 1000"),
        ({"schedule": "@daily", "count": 1001}, "/count", "allowed are 0 to 1000"),
        ({"schedule": "@daily", "count": "5"}, "/count", "must be a whole number"),
        ({"schedule": "@daily", "hash_key": "x" * 257}, "/hash_key", "at most 256"),
        ({"schedule": "@daily", "hash_key": {}}, "/hash_key", "must be a string"),
        ({"schedule": "@daily", "dst": "skip"}, "/dst", 'such as {"gap": "run_after", "fold": "first"}, not a string'),
        ({"schedule": "@daily", "dst": {"gap": "skip", "flod": 1}}, "/dst/flod", "did you mean 'fold'?"),
        ({"schedule": "@daily", "dst": {"gap": "later"}}, "/dst/gap", "allowed are run_after, skip"),
        ({"schedule": "@daily", "dst": {"fold": []}}, "/dst/fold", "allowed are first, last, both"),
        ({"schedule": "@daily", "expr": "* * * * *"}, "/expr", "is not a field here"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
async def test_what_is_refused(one: Bench, fields: dict[str, Any], pointer: str, words: str) -> None:
    """422 names the field, the place in it, the fault and what would be right."""
    document = (await one.ask("POST", PATH, fields)).problem(422, "invalid")
    assert [fault["pointer"] for fault in document["errors"]] == [pointer]
    assert words in document["errors"][0]["message"]


async def test_every_fault_is_named(one: Bench) -> None:
    """One answer for all that is wrong; a body that is no object, and parameters, are refused too."""
    body = {"schedule": ["61 * * * *", "@daily", "@foo"], "timezone": "x", "count": True, "from": "", "frm": 1}
    assert (await one.ask("POST", PATH, body)).pointers() == [
        "/frm", "/timezone", "/count", "/from", "/schedule/0", "/schedule/2",
    ]  # fmt: skip
    assert (await one.ask("POST", PATH, [])).pointers() == [""]
    assert (await one.ask("POST", PATH + "?count=5", {"schedule": "@daily"})).pointers() == ["?count"]
    (await one.ask("POST", PATH, data=b"")).problem(400, "malformed")
    (await one.ask("GET", PATH)).problem(405, "method_not_allowed")


@pytest.mark.parametrize("name", ["schedules.jsonl.gz", "schedules_extended.jsonl.gz"])
async def test_case_files(one: Bench, name: str) -> None:
    """Rows of the case files come out right over HTTP too."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][::STEP]
    for row in rows:
        body = {"schedule": row["expr"], "timezone": row["tz"], "from": row["start"], "count": len(row["expected"])}
        answer = (await one.ask("POST", PATH, body)).expect(200).json
        assert answer["next"] == row["expected"], row


async def test_without_a_leader_any_node_answers(two: Bench) -> None:
    """The question needs no quorum and is not forwarded."""
    two.cluster.depose()
    answer = await two.ask("POST", PATH, {"schedule": "@daily", "from": SPRING, "count": 1}, on="n2")
    assert answer.expect(200).json["next"] == ["2026-03-29T00:00:00Z"]
    assert answer.headers["Raftcron-Node"] == "n2"


async def test_the_loop_goes_on_meanwhile(one: Bench) -> None:
    """The most that can be asked for is worked out in many turns of the loop."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    schedules = [f"{second},30 * * * * *" for second in range(16)]
    body = {"schedule": schedules, "count": 1_000, "timezone": "Europe/Berlin"}
    answer = (await one.ask("POST", PATH, body)).expect(200).json
    counting.cancel()
    assert len(answer["next"]) == 1_000
    assert turns > 500
