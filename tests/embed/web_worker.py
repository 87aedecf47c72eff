"""One worker of a web application, started several times: DATA_DIR OUT NAME=RAFT=HTTP...; each writes into OUT."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from raftcron.embed import RaftCron, Run

data_dir, out, *nodes = sys.argv[1:]
peers = {name: raft for name, raft, _ in (node.split("=") for node in nodes)}
http = {name: address for name, _, address in (node.split("=") for node in nodes)}
cron = RaftCron(peers=peers, data_dir=data_dir, http=http, lease="2s", lease_margin="500ms")


def say(*words: object) -> None:
    """One line, whole, whoever else writes."""
    with Path(out).open("ab", buffering=0) as file:
        file.write((" ".join(map(str, words)) + "\n").encode())


@cron.job("@every 1s", name="tick", overlap={"policy": "allow"}, history={"runs": 1000})
async def tick(run: Run) -> None:
    say("run", run.scheduled_time.isoformat(), run.attempt, run.node, os.getpid())


async def main() -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    application = web.Application()
    application.cleanup_ctx.append(cron.cleanup_ctx)
    runner = web.AppRunner(application)
    await runner.setup()
    say("up", os.getpid(), cron.name)
    await over.wait()
    await runner.cleanup()


asyncio.run(main())
