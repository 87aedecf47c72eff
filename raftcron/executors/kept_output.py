"""Reads the outputs that a node keeps on its disk, live ones too; what is written and deleted is in output.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from raftcron.executors.output import output_name

READ_BYTES = 64 << 10
POLL_SECONDS = 0.2  # between two looks at an output that is still being written
READERS_MAX = 200  # at a time on one node; each holds a connection and a file


class KeptOutput:
    """The outputs below some directories of this node.  `readers` counts those under way, for whoever bounds them."""

    def __init__(self, directories: Sequence[Path] = ()) -> None:
        self._directories = tuple(directories)
        self.readers = 0

    async def open(self, run_id: str, token: int) -> Reading | None:
        """The output of one attempt; None if there is none: not yet, nothing was said, or it was deleted."""
        name = output_name(run_id, token)
        descriptor = await asyncio.to_thread(self._open, name)
        return None if descriptor is None else Reading(descriptor)

    def _open(self, name: str) -> int | None:
        for directory in self._directories:
            try:
                return os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
        return None


class Reading:
    """One output, opened: it can be read to its end also if it is deleted meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def pieces(self, is_over: Callable[[], bool]) -> AsyncIterator[bytes]:
        """All that is there, and what comes until `is_over`.  Closes it at the end."""
        try:
            while True:
                is_last = is_over()  # asked before the look, so that nothing is missed
                if data := await asyncio.to_thread(os.read, self._descriptor, READ_BYTES):
                    yield data
                elif is_last:
                    return
                else:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            os.close(self._descriptor)
