"""One real node to be asked strange things: its jobs call no address and start no command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.harness import Cluster, Node

NOWHERE = ("--refuse-addresses", "0.0.0.0/0", "--refuse-addresses", "::/0")


@contextmanager
def fuzzed_node(folder: Path) -> Iterator[Node]:
    """Ready, and killed at the end."""
    with asyncio.Runner() as runner:
        cluster = Cluster(folder, size=1, extra=NOWHERE)
        runner.run(cluster.__aenter__())
        try:
            runner.run(cluster.start())
            yield cluster.nodes["n1"]
        finally:
            runner.run(cluster.__aexit__(None, None, None))
