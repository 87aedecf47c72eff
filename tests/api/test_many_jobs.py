"""20,000 jobs through the front door: written by one request, found again page by page."""

from __future__ import annotations

import json

from tests.api.bench import GOOD, Bench

COUNT = 20_000


async def test_20_000_jobs_of_one_request_are_listed_through_cursors(one: Bench) -> None:
    """Each with its own result; then each once, in order, whole, in pages of a thousand."""
    names = [f"job-{number * 7919 % COUNT:05}" for number in range(COUNT)]
    body = b"\n".join(json.dumps({**GOOD, "name": name, "labels": {"last": name[-1]}}).encode() for name in names)
    sent = await one.ask("POST", "/v1/jobs:apply", data=body, headers={"Content-Type": "application/x-ndjson"})
    results = sent.expect(200).json["results"]
    assert [(result["name"], result["status"]) for result in results] == [(name, 201) for name in names]
    for query, wanted in (("", sorted(names)), ("&label=last=7", sorted(name for name in names if name[-1] == "7"))):
        found: list[str] = []
        cursor = ""
        while True:
            page = (await one.ask("GET", f"/v1/jobs?limit=1000&count=1{query}{cursor}")).expect(200).json
            assert page["total"] == len(wanted)
            assert all(job["labels"] == {"last": job["name"][-1]} for job in page["items"])
            found += [job["name"] for job in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert found == wanted
