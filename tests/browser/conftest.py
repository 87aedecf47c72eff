"""A node and a browser for each file of tests, and a tab of its own for each test; tests have jobs of their own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cluster.harness import Cluster

pytest.importorskip("playwright.async_api", reason="Playwright for Python is not installed here")

from playwright.async_api import Browser

from tests.browser.watched import CHROMIUM, Watched, chromium, watched


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"there is no {CHROMIUM} here (Debian: apt-get install chromium); scripts/test installs it as root")
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """A cluster of one."""
    async with Cluster(tmp_path_factory.mktemp("one") / "one", size=1, allow_shell=True) as cluster:
        await cluster.start()
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, one: Cluster) -> AsyncIterator[Watched]:
    """The page of that one, in a tab whose complaints fail the test."""
    async with watched(browser, one.nodes["n1"].url) as page:
        yield page
