"""What the overview says went wrong: all that the node can tell, each failure once, and no more than can be told."""

from __future__ import annotations

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
