"""What the tests of the replicated log share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.raft.engine_cluster import Cluster, MakeCluster


@pytest.fixture
async def make_cluster(tmp_path: Path) -> AsyncIterator[MakeCluster]:
    """Makes clusters that are not started; stops whatever runs in the end, and demands that no node has died."""
    clusters: list[Cluster] = []

    def make(count: int = 3, **settings: Any) -> Cluster:
        clusters.append(Cluster(tmp_path / str(len(clusters)), count, **settings))
        return clusters[-1]

    yield make
    for cluster in clusters:
        await cluster.stop()
        cluster.release()
        assert {name: failures for name, failures in cluster.failures.items() if failures} == cluster.expected
