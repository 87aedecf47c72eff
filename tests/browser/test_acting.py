"""What the page does: each action is one write of the public interface, and each refusal is shown whole."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Route, expect

from tests.browser.test_watching import put, run
from tests.browser.watched import Watched
from tests.cluster.harness import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def job(one: Cluster, name: str) -> dict[str, object]:
    return dict((await one.request("n1", "GET", f"/v1/jobs/{name}")).expect(200).json)


async def test_run_now(one: Cluster, page: Watched) -> None:
    """With arguments; what is no JSON never leaves the page."""
    await put(one, "echo", executor={"type": "shell", "command": 'printf %s "$RAFTCRON_ARGS"'})
    await page.go("#/jobs/echo")
    await page.button("Run now").click()
    await page.dialog.get_by_label("Arguments (JSON, may be empty)").fill("{table: 1}")
    await page.dialog.get_by_role("button", name="Run now").click()
    await expect(page.problem).to_contain_text("The arguments are no JSON")
    await page.dialog.get_by_label("Arguments (JSON, may be empty)").fill('{"table": "orders"}')
    await page.dialog.get_by_role("button", name="Run now").click()
    await expect(page.notice).to_contain_text("echo: run")
    await page.rows("History").first.get_by_role("link").first.click()
    await expect(page.page.locator("#written")).to_have_text('{"table":"orders"}')
    await page.button("Run again").click()
    await page.dialog.get_by_role("button", name="Run again").click()
    await expect(page.notice.last).to_contain_text("echo: run")
    runs = (await one.request("n1", "GET", "/v1/jobs/echo/runs")).expect(200).json["items"]
    assert [found["args"] for found in runs] == [{"table": "orders"}] * 2


async def test_pause_resume_skip(one: Cluster, page: Watched) -> None:
    """Each shows on the page what it has changed."""
    await put(one, "noon", schedule="0 12 * * *")
    await page.go("#/jobs/noon")
    await page.button("Pause").click()
    await page.dialog.get_by_label("Why (others will see it)").fill("maintenance")
    await page.dialog.get_by_role("button", name="Pause").click()
    await expect(page.page.locator("main .banner")).to_have_text("Paused: maintenance")
    await expect(page.text("None while it is paused.")).to_be_visible()
    await page.button("Resume").click()
    await page.dialog.get_by_role("button", name="Resume").click()
    await expect(page.page.locator(".head .state")).to_have_text(re.compile("active"))
    await page.button("Skip next").click()
    await page.dialog.get_by_label("How many").fill("2")
    await page.dialog.get_by_role("button", name="Skip").click()
    await expect(page.notice.last).to_have_text(re.compile("2 times will be skipped"))
    await expect(page.card("Schedule")).to_contain_text("Will be skipped")
    assert len(list((await job(one, "noon"))["skips"])) == 2  # type: ignore[call-overload]


async def test_cancel(one: Cluster, page: Watched) -> None:
    await put(one, "sleeps", executor={"type": "shell", "command": "sleep 600"})
    await page.go(f"#/runs/{await run(one, 'sleeps')}")
    await page.button("Cancel").click()
    await page.dialog.get_by_role("button", name="Cancel the run").click()
    await expect(page.page.locator(".head .state")).to_have_text(re.compile("cancelled"))


async def test_delete_wants_the_name(one: Cluster, page: Watched) -> None:
    """Typed; then the job is gone, and the page is at the list."""
    await put(one, "doomed")
    await page.go("#/jobs/doomed")
    await page.button("Delete").click()
    go = page.dialog.get_by_role("button", name="Delete the job")
    await expect(go).to_be_disabled()
    await page.dialog.get_by_label("Name of the job").fill("doome")
    await expect(go).to_be_disabled()
    await page.dialog.get_by_label("Name of the job").fill("doomed")
    await go.click()
    await expect(page.heading("Jobs")).to_be_visible()
    (await one.request("n1", "GET", "/v1/jobs/doomed")).expect(404)


async def test_backfill_is_dry_first(one: Cluster, page: Watched) -> None:
    """The button that starts runs names their number, and appears only for the span that was seen."""
    await put(one, "daily", schedule="0 0 * * *")
    await page.go("#/jobs/daily")
    await page.button("Backfill").click()
    await page.dialog.get_by_label("From").fill("2026-01-01T00:00:00")
    await page.dialog.get_by_label("To").fill("2026-01-04T12:00:00")
    await page.dialog.get_by_role("button", name="Preview").click()
    await expect(page.dialog.get_by_role("button", name="Start 4 runs")).to_be_visible()
    assert (await one.request("n1", "GET", "/v1/jobs/daily/runs")).json["items"] == []
    await page.dialog.get_by_label("To").fill("2026-01-02T12:00:00")
    await expect(page.dialog.get_by_role("button", name="Preview")).to_be_visible()
    await page.dialog.get_by_role("button", name="Preview").click()
    await page.dialog.get_by_role("button", name="Start 2 runs").click()
    await expect(page.rows("History")).to_have_count(2)


async def test_edit_shows_every_fault_and_what_would_change(one: Cluster, page: Watched) -> None:
    """A dry run first; a job that was changed meanwhile is not overwritten."""
    await put(one, "edited", schedule="0 12 * * *")
    await page.go("#/jobs/edited/edit")
    text = page.page.get_by_label("Definition as JSON")
    await expect(text).to_have_value(re.compile('"name": "edited"'))
    await expect(page.button("Save")).to_be_disabled()
    definition = json.loads(await text.input_value())
    assert "revision" not in definition
    await text.fill(json.dumps(definition | {"schedule": "99 * * * *", "timeout": "soon", "colour": "red"}))
    await page.button("Preview").click()
    for pointer in ("/schedule", "/timeout", "/colour"):
        await expect(page.problem.locator("code", has_text=pointer)).to_be_visible()
    await text.fill(json.dumps(definition | {"schedule": "30 13 * * *"}))
    await page.button("Preview").click()
    await expect(page.card("What it would do")).to_contain_text("/schedule")
    await put(one, "edited", schedule="0 12 * * *", description="by somebody else")
    await page.button("Save").click()
    await expect(page.problem).to_contain_text("revision")
    await page.button("Load what it is now").click()
    await expect(text).to_have_value(re.compile("by somebody else"))
    await text.fill((await text.input_value()).replace("0 12 * * *", "45 13 * * *"))
    await page.button("Preview").click()
    await page.button("Save").click()
    await expect(page.heading("edited")).to_be_visible()
    await expect(page.card("Schedule")).to_contain_text("at 13:45")
    assert (await job(one, "edited"))["description"] == "by somebody else"


async def test_a_new_job(one: Cluster, page: Watched) -> None:
    """From what the page proposes; a name that is taken is refused."""
    await page.go("#/new")
    await page.button("Preview").click()
    await expect(page.text("A new job.")).to_be_visible()
    await page.button("Save").click()
    await expect(page.heading("hello")).to_be_visible()
    await page.go("#/new")
    await page.button("Preview").click()
    await expect(page.problem).to_be_visible()


async def test_an_answer_that_is_lost_is_asked_for_again_under_the_same_key(one: Cluster, page: Watched) -> None:
    """So that a click too many runs nothing twice."""
    await put(one, "once")
    keys = []

    async def lose_first(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()  # it was done
            await route.abort()
        else:
            await route.continue_()

    await page.page.route("**/v1/jobs/once/runs", lose_first)
    await page.go("#/jobs/once")
    await page.button("Run now").click()
    await page.dialog.get_by_role("button", name="Run now").click()
    await expect(page.problem).to_contain_text("Whether it was done is not known")
    await page.dialog.get_by_role("button", name="Run now").click()
    await expect(page.notice).to_contain_text("once: run")
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert len((await one.request("n1", "GET", "/v1/jobs/once/runs")).json["items"]) == 1
