"""What the overview says went wrong: all that the node can tell, each failure once, and no more than can be told."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser.watched import Watched
from tests.cluster.harness import Cluster, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 60.0


async def put(one: Cluster, name: str, command: str, **fields: Any) -> None:
    job = {"schedule": "0 0 1 1 *", "executor": {"type": "shell", "command": command}} | fields
    (await one.request("n1", "PUT", f"/v1/jobs/{name}", body=job)).expect(200, 201)


async def ends(one: Cluster, name: str, state: str, *, of: str = "runs", body: Any = None) -> None:
    """A run of the job, or what else is asked for, has ended so."""
    (await one.request("n1", "POST", f"/v1/jobs/{name}/{of}", body=body or {})).expect(200, 202)

    async def counted() -> bool:
        job = (await one.request("n1", "GET", f"/v1/jobs/{name}")).expect(200).json
        return bool(job["stats"][state])

    await eventually(counted, within=PATIENCE, what=f"job {name} counts one as {state}")


def wrong(page: Watched) -> Any:
    """The tile that counts."""
    return page.page.locator(".tile").filter(has_text="Wrong in 24 h")


async def test_a_backfill_of_past_days_that_failed_just_now_is_there(one: Cluster, page: Watched) -> None:
    """What counts is when it ended, not the time that it was for; on a page that is loaded afterwards, too."""
    await put(one, "of-old", "exit 3")
    span = {"from": "2020-01-01T00:00:00Z", "to": "2020-12-31T00:00:00Z"}
    await ends(one, "of-old", "failed", of="backfill", body=span)
    await page.page.reload()
    await expect(page.rows("Went wrong").filter(has_text="of-old")).to_contain_text("exit code 3")
    await expect(wrong(page).locator(".value")).to_have_text("1")
    await expect(wrong(page)).to_contain_text("of the runs still kept")


async def test_a_failure_whose_run_is_no_longer_kept_is_there(one: Cluster, page: Watched) -> None:
    """From the figures of its job, which outlive its runs; and the count says that it is not all."""
    gate = one.folder / "gate"
    await put(one, "forgets", f"test -e {gate}", history={"runs": 1})
    await ends(one, "forgets", "failed")
    gate.touch()
    await ends(one, "forgets", "succeeded")
    await page.page.reload()
    row = page.rows("Failures without a run").filter(has_text="forgets")
    await expect(row).to_contain_text("failed: 1")
    await expect(page.rows("Went wrong").filter(has_text="forgets")).to_have_count(0)
    await expect(wrong(page).locator(".value")).to_have_text(re.compile(r"^\d+ or more$"))
    await expect(wrong(page)).not_to_contain_text("kept")


async def test_each_link_names_the_runs_that_it_leads_to(one: Cluster, page: Watched) -> None:
    """A list shows one state, so there is a link for each that is wrong; the tile leads to none of them."""
    await put(one, "any", "true")
    links = page.card("Went wrong").locator(".aside a")
    await expect(links).to_have_text(["failed", "timed out", "lost"])
    await expect(page.page.locator("a.tile").filter(has_text="Wrong in 24 h")).to_have_count(0)
    await links.nth(1).click()
    await expect(page.page.get_by_label("State")).to_have_value("timed_out")


async def test_a_divided_run_that_failed_counts_once(one: Cluster, page: Watched) -> None:
    """The parent stands for its parts."""
    value = wrong(page).locator(".value")
    await expect(value).to_have_text(re.compile(r"^\d"))
    before = int((await value.inner_text()).split()[0])
    await put(one, "divided", "exit 5", placement={"shards": 2})
    await ends(one, "divided", "failed")
    await page.page.reload()
    row = page.rows("Went wrong").filter(has_text="divided")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("of 2 parts 2 failed")
    await expect(value).to_have_text(re.compile(rf"^{before + 1}\b"))


async def test_parts_and_their_parent_are_told_apart(one: Cluster, page: Watched) -> None:
    """In a job's history, where all of them stand."""
    await put(one, "told-apart", "true", placement={"shards": 2})
    await ends(one, "told-apart", "succeeded")
    await page.go("#/jobs/told-apart")
    await expect(page.rows("History")).to_have_count(3)
    for mark in ("parent of 2 parts", "shard 0 of 2", "shard 1 of 2"):
        await expect(page.rows("History").filter(has_text=mark)).to_have_count(1)


async def test_no_more_is_said_than_is_known(one: Cluster, page: Watched) -> None:
    """Where nothing went wrong: of which runs, and what the figures of the jobs add to that."""
    jobs = [item["name"] for item in (await one.request("n1", "GET", "/v1/jobs")).expect(200).json["items"]]
    for name in jobs:
        (await one.request("n1", "DELETE", f"/v1/jobs/{name}")).expect(204)
    await put(one, "calm", "true")

    async def only(route: Any) -> None:
        await route.fulfill(json={"items": [], "next_cursor": None, "total": 0})

    await page.page.route("**/v1/runs?*", only)
    await page.page.reload()
    said = page.card("Went wrong")
    await expect(said).to_contain_text(
        "Of the runs still kept none failed, timed out or was lost in the last 24 hours."
    )
    await expect(said).to_contain_text("Nor did any job have its last failure then")
    await expect(wrong(page).locator(".value")).to_have_text("0")

    async def many(route: Any) -> None:
        await route.fulfill(json={"items": [], "next_cursor": "more", "total": None})

    await page.page.route("**/v1/jobs?limit=1000*", many)
    await page.page.reload()
    await expect(said).to_contain_text("There are more jobs than are looked through here")
