"""What the page shows: at once, without being loaded again, and never more than text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.watched import Watched, watched
from tests.cluster.harness import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<img src=x onerror=\"window.hacked.push('img')\"><script>window.hacked.push('script')</script>\"'`${1}"


async def put(one: Cluster, name: str, **fields: Any) -> None:
    job = {"schedule": "@manual", "executor": {"type": "shell", "command": "true"}} | fields
    (await one.request("n1", "PUT", f"/v1/jobs/{name}", body=job)).expect(200, 201)


async def run(one: Cluster, name: str, **fields: Any) -> str:
    answer = await one.request("n1", "POST", f"/v1/jobs/{name}/runs", body=fields)
    return str(answer.expect(202).json["run"]["id"])


async def test_an_empty_cluster_says_how_to_begin(browser: Browser, tmp_path: Path) -> None:
    """The command that it shows names the node that shows it; the first job then appears by itself."""
    async with Cluster(tmp_path / "empty", size=1, allow_shell=True) as empty:
        await empty.start()
        async with watched(browser, empty.nodes["n1"].url) as page:
            await expect(page.text("There is no job yet.")).to_be_visible()
            await expect(page.page.locator("pre").first).to_contain_text(f"curl -sS -X PUT {page.base}/v1/jobs/hello")
            await page.go("#/runs")
            await expect(page.text("Nothing has run yet.")).to_be_visible()
            await page.go("#/nowhere")
            await page.link("Go to the overview").click()
            await expect(page.text("n1 leads")).to_be_visible()
            await put(empty, "first")
            await expect(page.page.get_by_role("link", name=re.compile("^Jobs 1 "))).to_be_visible()


async def test_what_changes_is_shown_without_a_reload(one: Cluster, page: Watched) -> None:
    """A run and its failure: from the stream of events alone, on a page that nobody touches."""
    await expect(page.page.locator(".pulse.live")).to_be_attached()
    await page.mark()
    await put(one, "breaks", executor={"type": "shell", "command": "exit 37"})
    await run(one, "breaks")
    row = page.rows("Went wrong").filter(has_text="exit code 37")
    await expect(row).to_contain_text("failed")
    await expect(row).to_contain_text("breaks")
    assert await page.is_marked()


async def test_without_a_stream_it_lists_again(one: Cluster, page: Watched) -> None:
    """Where events cannot be had the page asks every 5 s; where they were lost (410) it begins anew."""
    statuses = iter((503, 503, 410))

    async def refuse(route: Route) -> None:
        status = next(statuses, None)
        if status is None:
            await route.continue_()
        else:
            await route.fulfill(status=status, json={"title": "no", "status": status, "detail": "not now"})

    await page.page.route("**/v1/events*", refuse)
    await page.page.reload()
    await put(one, "late")
    await page.go("#/jobs")
    await expect(page.link("late")).to_be_visible()
    await expect(page.page.locator(".pulse.live")).to_be_attached()
    await put(one, "later")
    await expect(page.link("later")).to_be_visible()


async def test_hostile_text_stays_text(one: Cluster, page: Watched) -> None:
    """Descriptions, labels, notes, arguments, output, errors: whatever people and programs write."""
    await put(
        one,
        "hostile",
        description=HOSTILE,
        labels={"team": HOSTILE[:63]},
        executor={"type": "shell", "command": ["printf", "%s", HOSTILE]},
    )
    (await one.request("n1", "POST", "/v1/jobs/hostile/pause", body={"note": HOSTILE})).expect(200)
    run_id = await run(one, "hostile", args={HOSTILE: HOSTILE})
    await page.go("#/jobs")
    await expect(page.text(HOSTILE)).to_be_visible()
    await expect(page.text(f"team={HOSTILE[:63]}")).to_be_visible()
    await page.go("#/jobs/hostile")
    await expect(page.page.locator("main .banner")).to_contain_text(f"Paused: {HOSTILE}")
    await page.go(f"#/runs/{run_id}")
    await expect(page.page.locator("#written")).to_have_text(HOSTILE)
    await expect(page.card("About it")).to_contain_text("onerror")
    await put(one, "unheard", executor={"type": "http", "url": "http://127.0.0.1:1/<script>alert(1)</script>"})
    await run(one, "unheard")
    await page.go("#/runs?job=unheard")
    await expect(page.rows("Runs").first).to_contain_text("failed")
    await page.go("#/jobs/%3Cimg%20src%3Dx%20onerror%3D%22window.hacked.push(1)%22%3E")
    await expect(page.problem).to_contain_text("there is no job")
    await page.go("#/events")
    await run(one, "hostile")
    await expect(page.rows("Events").first).to_contain_text("hostile")


async def test_output_is_followed(one: Cluster, page: Watched) -> None:
    """Line by line while the run goes on, which ends when the test says so."""
    gate = one.folder / "gate"
    command = f"echo first; until [ -e {gate} ]; do sleep 0.05; done; echo last"
    await put(one, "talks", executor={"type": "shell", "command": command})
    await page.go(f"#/runs/{await run(one, 'talks')}")
    await expect(page.page.locator("#written")).to_have_text("first\n")
    await expect(page.page.locator(".head .state")).to_have_text(re.compile("running"))
    gate.touch()
    await expect(page.page.locator("#written")).to_have_text("first\nlast\n")
    await expect(page.page.locator(".head .state")).to_have_text(re.compile("succeeded"))
    await expect(page.button("Run again")).to_be_visible()


async def test_why(one: Cluster, page: Watched) -> None:
    """A link to a question shows its answer in words."""
    await put(one, "yearly", schedule="0 0 1 1 *")
    await page.go("#/jobs/yearly?why=2040-01-01T00:00:00Z")
    await expect(page.page.locator(".answer")).to_contain_text("undecided")
    await expect(page.card("Schedule")).to_contain_text("at 00:00")
    await expect(page.rows("Coming fires")).to_have_count(10)


async def test_a_schedule_is_explained_as_it_is_typed(page: Watched) -> None:
    """In words, with its next times; what is wrong is said with its pointer."""
    await page.go("#/schedule")
    await page.page.get_by_label("Schedule (one a line)").fill("0 12 * * MON")
    await page.page.get_by_label("Time zone").fill("Europe/Berlin")
    await expect(page.page.locator(".words")).to_contain_text("Europe/Berlin")
    await expect(page.rows("Next times")).to_have_count(12)
    await page.page.get_by_label("Schedule (one a line)").fill("61 * * * *")
    await expect(page.problem).to_contain_text("/schedule")
    await page.page.get_by_role("button", name="@every 90s").click()
    await expect(page.page.locator(".words")).to_contain_text("every 1m30s")


async def test_ten_thousand_jobs(one: Cluster, page: Watched) -> None:
    """A page shows fifty, the next one the next fifty, and a search looks through all of them."""
    jobs = [
        {"name": f"many-{number:05}", "schedule": "@manual", "executor": {"type": "shell", "command": "true"},
         "labels": {"half": str(number % 2)}}
        for number in range(10_000)
    ]  # fmt: skip
    (await one.request("n1", "POST", "/v1/jobs:apply", body={"jobs": jobs}, timeout=60)).expect(200)
    await page.go("#/jobs")
    await expect(page.text(re.compile(r"^10,0\d\d jobs$"))).to_be_visible()
    await page.page.get_by_label("Search").fill("many-")
    await expect(page.rows("Jobs")).to_have_count(50)
    await expect(page.rows("Jobs").first).to_contain_text("many-00000")
    await page.button("Next").click()
    await expect(page.rows("Jobs").first).to_contain_text("many-00050")
    await page.button("Next").click()
    await expect(page.rows("Jobs").first).to_contain_text("many-00100")
    await page.button("Before").click()
    await expect(page.rows("Jobs").first).to_contain_text("many-00050")
    await page.page.get_by_label("Search").fill("many-0999")
    await expect(page.rows("Jobs")).to_have_count(10)
    await page.page.get_by_label("Label").fill("half=1")
    await expect(page.rows("Jobs")).to_have_count(5)
    assert page.page.url.endswith("#/jobs?q=many-0999&label=half%3D1")
    await page.page.get_by_label("State").select_option("paused")
    await expect(page.text("No job is like that.")).to_be_visible()
