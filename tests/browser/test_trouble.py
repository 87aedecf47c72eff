"""What the page says when nodes die, and that it goes on by itself when they are back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.watched import watched
from tests.cluster.harness import Cluster, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def three(browser: Browser, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "three", allow_shell=True) as cluster:
        await cluster.start()
        yield cluster


async def leader_of(cluster: Cluster) -> str:
    async def known() -> str | None:
        leader = (await cluster.status(cluster.alive[0]))["leader"]
        return leader if leader in cluster.alive else None

    return str(await eventually(known, within=30, what="a leader that lives is known"))


async def put(cluster: Cluster, node: str, name: str) -> None:
    job = {"schedule": "@manual", "executor": {"type": "shell", "command": "true"}}
    (await cluster.request(node, "PUT", f"/v1/jobs/{name}", body=job)).expect(201)


async def test_the_leader_dies_and_the_page_goes_on(browser: Browser, three: Cluster) -> None:
    """On a follower's page: the new leader is shown, the dead one is not heard, and what is written comes in live."""
    first = await leader_of(three)
    follower, other = (name for name in three.nodes if name != first)
    async with watched(browser, three.nodes[follower].url) as page:
        await expect(page.text(f"{first} leads")).to_be_visible()
        await expect(page.page.locator(".pulse.live")).to_be_attached()
        await page.mark()
        await three.kill(first)
        second = await leader_of(three)
        assert second in (follower, other)
        await expect(page.text(f"{second} leads")).to_be_visible()
        await expect(page.rows("Members").filter(has=page.page.get_by_text(first, exact=True))).to_contain_text(
            "not heard"
        )
        await put(three, other, "after-the-kill")
        await page.go("#/jobs")
        await expect(page.link("after-the-kill")).to_be_visible()
        await page.go("#/cluster")
        await expect(page.rows("Leaders and lives of nodes").filter(has_text=f"{second} leads").first).to_be_visible()
        await three.start(first)
        await expect(page.rows("Members").filter(has=page.page.get_by_text(first, exact=True))).to_contain_text("alive")
        assert await page.is_marked()


async def test_without_a_quorum_it_says_how_old_what_it_shows_is(browser: Browser, three: Cluster) -> None:
    """Nothing is hidden: jobs are read stale, and a write says that it was not done."""
    await put(three, "n1", "seen")
    async with watched(browser, three.nodes["n1"].url) as page:
        await expect(page.page.get_by_role("link", name=re.compile("^Jobs 1 "))).to_be_visible()
        await three.kill("n2", "n3")
        await expect(page.banner).to_contain_text("No quorum")
        await expect(page.banner).to_contain_text("1 of 3 voters")
        await page.go("#/jobs/seen")
        await expect(page.heading("seen")).to_be_visible()
        await expect(page.card("Definition")).to_contain_text('"schedule": "@manual"')
        await expect(page.banner).to_contain_text("stale reads")
        await page.button("Run now").click()
        await page.dialog.get_by_role("button", name="Run now").click()
        await expect(page.problem).to_be_visible()
        await page.dialog.get_by_role("button", name="Cancel").click()
        await three.start("n2")
        await expect(page.banner).to_have_count(0)


async def test_its_own_node_dies(browser: Browser, three: Cluster) -> None:
    """The page says so, links to the others, and is live again once the node is back, without a reload."""
    async with watched(browser, three.nodes["n1"].url) as page:
        await page.go("#/jobs")
        await expect(page.text("There is no job yet.")).to_be_visible()
        await page.mark()
        await three.kill("n1")
        await expect(page.banner).to_contain_text("n1 does not answer")
        for name in ("n2", "n3"):
            link = page.banner.get_by_role("link", name=name, exact=True)
            await expect(link).to_have_attribute("href", f"{three.nodes[name].url}/#/jobs")
        await leader_of(three)
        await put(three, "n2", "made-elsewhere")
        await three.start("n1")
        await expect(page.banner).to_have_count(0)
        await expect(page.link("made-elsewhere")).to_be_visible()
        assert await page.is_marked()
