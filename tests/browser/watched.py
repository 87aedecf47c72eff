"""The web page in a real Chromium, seen through a thin hand: where it is, what it says, and what the browser minds."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

CHROMIUM = "chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 20_000  # for what the page has to show; it is shown in a fraction of that
NETWORK = "Failed to load resource"  # what a browser says of any answer of 400 or more, and of silence

expect.set_options(timeout=WAIT_MS)

# Kept in the page itself: the policy's complaints, and whether what is only text was ever run.
WATCH = """
window.violations = [];
window.hacked = [];
document.addEventListener('securitypolicyviolation', (event) => window.violations.push(event.violatedDirective));
"""


class Watched:
    """One tab.  `complaints` are errors and warnings of the console, and of scripts, so far."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(NETWORK):
            self.complaints.append(f"{message.type}: {message.text}")

    async def go(self, address: str = "") -> None:
        """To a view of the page, as a link to it would; the page is loaded where it is not yet."""
        if self.page.url.startswith(self.base):
            await self.page.evaluate("address => { location.hash = address }", address or "#/")
        else:
            await self.page.goto(f"{self.base}/{address}")

    async def check(self) -> None:
        """AssertionError if the browser minded anything."""
        assert self.complaints == []
        assert await self.page.evaluate("[window.violations, window.hacked]") == [[], []]

    # ---- what it shows

    def text(self, text: str | re.Pattern[str], *, exact: bool = False) -> Locator:
        return self.page.get_by_text(text, exact=exact).first

    def heading(self, name: str) -> Locator:
        return self.page.get_by_role("heading", name=name, exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, name: str) -> Locator:
        return self.page.get_by_role("link", name=name, exact=True)

    def card(self, title: str) -> Locator:
        return self.page.get_by_role("region", name=title, exact=True).filter(has=self.heading(title))

    def rows(self, caption: str) -> Locator:
        return self.page.get_by_role("table", name=caption, exact=True).locator("tbody tr")

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    @property
    def banner(self) -> Locator:
        return self.page.locator("#frame .banner")

    @property
    def problem(self) -> Locator:
        return self.page.locator(".problem")

    @property
    def notice(self) -> Locator:
        return self.page.locator(".notice")

    async def mark(self) -> None:
        """So that `is_marked` can tell that the page is still the one that was loaded then."""
        await self.page.evaluate("window.mark = true")

    async def is_marked(self) -> bool:
        return bool(await self.page.evaluate("window.mark === true"))


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser with an empty profile."""
    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=shutil.which(CHROMIUM), args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def watched(browser: Browser, base: str, **options: Any) -> AsyncIterator[Watched]:
    """A tab at the page of `base`, with nothing kept from others; at the end the browser has minded nothing."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    try:
        await context.add_init_script(WATCH)
        watched = Watched(await context.new_page(), base)
        await watched.go()
        yield watched
        await watched.check()
    finally:
        await context.close()
