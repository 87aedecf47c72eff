"""A node as `raftcron server` starts it that, told by SIGUSR1, also proposes, and writes down how long that took.

Run by path, with the flags of `raftcron server`.  Only the leader answers the signal: with `commit.json` in its data
directory.  The command is a cancel of a run that does not exist: it goes all the way of any other through journal,
peers and apply, and changes nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from typing import Any

from raftcron.cli.server import server
from raftcron.clock import SystemClock
from raftcron.config import SETTINGS, load
from raftcron.core.commands import Cancel
from raftcron.daemon import Daemon
from raftcron.node import Node

WARM_UP = 300
ALONE = 3_000  # proposals, one after the other
IN_FLIGHT = 256
TOGETHER = 40_000  # proposals, IN_FLIGHT at a time
ROUNDS = 3
COMMAND = Cancel("no-such-run")


async def measure(node: Node) -> dict[str, Any]:
    """Spans in milliseconds, from propose to applied on this node, and rates in commands a second."""
    alone: list[float] = []
    together: list[float] = []

    async def one(spans: list[float]) -> None:
        began = time.perf_counter()
        await node.proposer.propose(COMMAND)
        spans.append((time.perf_counter() - began) * 1000)

    for _ in range(WARM_UP):
        await one([])
    for _ in range(ALONE):
        await one(alone)
    rates: list[float] = []
    for _ in range(ROUNDS):
        left = iter(range(TOGETHER))

        async def many() -> None:
            for _ in left:  # noqa: B023 - all of them end within this round
                await one(together)

        began = time.perf_counter()
        await asyncio.gather(*(many() for _ in range(IN_FLIGHT)))
        rates.append(TOGETHER / (time.perf_counter() - began))
    return {"alone_ms": alone, "together_ms": together, "rates": rates, "in_flight": IN_FLIGHT}


async def serve(given: dict[str, Any]) -> None:
    """The node, until SIGTERM."""
    settings = load(given, os.environ)
    daemon = Daemon(settings, SystemClock())
    node = daemon.node
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def answer() -> None:
        found = await measure(node)
        fresh = settings.data_dir / "commit.tmp"
        fresh.write_text(json.dumps(found))
        fresh.rename(settings.data_dir / "commit.json")

    def asked() -> None:
        if node.log.status().leading_epoch is not None:
            tasks.add(loop.create_task(answer()))

    loop.add_signal_handler(signal.SIGTERM, daemon.end)
    loop.add_signal_handler(signal.SIGUSR1, asked)
    try:
        await daemon.start()
        await daemon.ended
    finally:
        await daemon.stop(is_orderly=False)


def main() -> None:
    """As `raftcron.daemon.run` sets a process up."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    gc.set_threshold(50_000, 50, 100)
    with server.make_context("committing_node", sys.argv[1:]) as context:
        given = {row.name: context.params.get(row.field) for row in SETTINGS}
    asyncio.run(serve(given))


if __name__ == "__main__":
    main()
