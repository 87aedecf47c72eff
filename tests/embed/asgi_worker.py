"""A bare ASGI application with a node inside, for a server that runs several workers of it.

CRON_DATA is where the nodes' directories are, CRON_OUT what each worker writes into, CRON_NODES NAME=RAFT=HTTP each.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from raftcron.embed import RaftCron, Run

Message = MutableMapping[str, Any]

nodes = [node.split("=") for node in os.environ["CRON_NODES"].split()]
cron = RaftCron(
    peers={name: raft for name, raft, _ in nodes},
    data_dir=os.environ["CRON_DATA"],
    http={name: http for name, _, http in nodes},
    lease="2s",
    lease_margin="500ms",
)


def say(*words: object) -> None:
    """One line, whole, whoever else writes."""
    with Path(os.environ["CRON_OUT"]).open("ab", buffering=0) as file:
        file.write((" ".join(map(str, words)) + "\n").encode())


@cron.job("@every 1s", name="tick", overlap={"policy": "allow"}, history={"runs": 1000})
async def tick(run: Run) -> None:
    say("run", run.scheduled_time.isoformat(), run.attempt, run.node, os.getpid())


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """What frameworks do with a lifespan, and the worker's process id for every request."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        async with cron.lifespan(app):
            say("up", os.getpid(), cron.name)
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
