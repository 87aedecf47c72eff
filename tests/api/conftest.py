"""One node, and two nodes; n1 leads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.bench import Bench, bench


@pytest.fixture
async def one() -> AsyncIterator[Bench]:
    async with bench(1) as made:
        yield made


@pytest.fixture
async def two() -> AsyncIterator[Bench]:
    async with bench(2, hold_seconds=0.3) as made:
        yield made


@pytest.fixture
async def patient() -> AsyncIterator[Bench]:
    """Two nodes that hold a request for as long as any machine takes."""
    async with bench(2, hold_seconds=60.0, request_timeout_seconds=120.0) as made:
        yield made
