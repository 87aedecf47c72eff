"""One node of the bench in a process of its own: says its port, and ends with its standard input."""

from __future__ import annotations

import asyncio
import resource
import sys

from tests.api.bench import bench


async def main() -> None:
    async with bench(1) as made:
        print(made.n1.url.rsplit(":", 1)[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
asyncio.run(main())
