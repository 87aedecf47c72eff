"""Who may see and do what on the page: tokens, the keyboard, narrow windows, and eyes that need contrast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.test_watching import put, run
from tests.browser.watched import Watched, watched
from tests.cluster.harness import Cluster, Node

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEWS = ("#/", "#/jobs", "#/jobs/seen", "#/runs", "#/schedule", "#/cluster", "#/events", "#/audit", "#/new")

# Of each element with text of its own: the ratio of its colour to the ground behind it, where that is below 4.5.
CONTRAST = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => {
    const part = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.matches('.unseen, .skip, option, :disabled')) continue;
    let ground = element;
    while (ground && channels(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
    const [one, other] = [getComputedStyle(element).color, getComputedStyle(ground ?? document.body).backgroundColor]
      .map((text) => light(channels(text))).sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${element.className}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


def bootstrap(node: Node) -> str:
    """An admin's token, made as an operator makes it."""
    made = subprocess.run(
        [sys.executable, "-m", "raftcron", "token", "create", "--bootstrap", "--data-dir", str(node.data)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return next(word for word in made.stdout.split() if word.startswith("rct."))


async def test_a_token_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    """A wrong one is refused in the node's words; a right one stays in the tab alone; a reader is offered no action."""
    closed = ["--advertise-http", "node.example.org:80"]
    async with Cluster(tmp_path / "closed", size=1, extra=closed, allow_shell=True) as cluster:
        await cluster.start()
        node = cluster.nodes["n1"]
        admin = {"Authorization": f"Bearer {bootstrap(node)}"}
        job = {"schedule": "@manual", "executor": {"type": "shell", "command": "true"}}
        (await cluster.request("n1", "PUT", "/v1/jobs/guarded", body=job, headers=admin)).expect(201)
        body = {"name": "eyes", "role": "read", "prefix": ""}
        reader = (await cluster.request("n1", "POST", "/v1/tokens", body=body, headers=admin)).expect(201).json["token"]
        async with watched(browser, node.url) as page:
            await expect(page.heading("This node wants a token")).to_be_visible()
            field = page.page.get_by_label("Token")
            await expect(field).to_be_focused()
            await field.fill("rct.eyes.wrong")
            await page.button("Use it").click()
            await expect(page.problem).to_be_visible()
            await field.fill(reader)
            await page.button("Use it").click()
            await expect(page.button("Leave eyes")).to_be_visible()
            await expect(page.page.locator(".pulse.live")).to_be_attached()
            await page.go("#/jobs/guarded")
            await expect(page.heading("Definition")).to_be_visible()
            await expect(page.button("Run now")).to_have_count(0)
            await expect(page.link("Audit")).to_have_count(0)
            kept = "[Object.values(localStorage).length, Object.values(sessionStorage), document.cookie]"
            assert await page.page.evaluate(kept) == [0, [reader], ""]
            await page.button("Leave eyes").click()
            await expect(page.heading("This node wants a token")).to_be_visible()


async def test_the_keyboard_is_enough(one: Cluster, page: Watched) -> None:
    """Skip link, views, a dialog that takes the focus and gives it back."""
    await put(one, "seen")
    await expect(page.text("n1 leads")).to_be_visible()
    await page.page.keyboard.press("Tab")
    await expect(page.link("Skip to the content")).to_be_focused()
    for name in ("raftcron", "Overview", "Jobs"):
        await page.page.keyboard.press("Tab")
        await expect(page.link(name)).to_be_focused()
    await page.page.keyboard.press("Enter")
    await expect(page.heading("Jobs")).to_be_visible()
    await page.go("#/jobs/seen")
    await page.button("Pause").focus()
    await page.page.keyboard.press("Enter")
    await expect(page.dialog.get_by_label("Why (others will see it)")).to_be_focused()
    await page.page.keyboard.press("Escape")
    await expect(page.dialog).to_have_count(0)
    await expect(page.button("Pause")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_can_be_read(browser: Browser, one: Cluster, scheme: str) -> None:
    """4.5 to 1 in each view, light and dark."""
    await put(one, "seen", executor={"type": "shell", "command": "exit 3"}, description="words", labels={"a": "b"})
    await run(one, "seen")
    async with watched(browser, one.nodes["n1"].url, color_scheme=scheme) as page:
        for view in VIEWS:
            await page.go(view)
            await expect(page.page.locator(".loading")).to_have_count(0)
            assert await page.page.evaluate(CONTRAST) == [], view


async def test_it_fits_a_phone(browser: Browser, one: Cluster) -> None:
    """360 pixels: no view is wider than the window."""
    await put(one, "seen", description="words " * 40, labels={"a": "b" * 60})
    await put(one, "n" * 128)
    await run(one, "seen")
    async with watched(browser, one.nodes["n1"].url, viewport={"width": 360, "height": 780}) as page:
        for view in VIEWS:
            await page.go(view)
            await expect(page.page.locator(".loading")).to_have_count(0)
            beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.page.evaluate(beyond) <= 0, view
