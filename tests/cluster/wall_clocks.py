"""Real nodes whose wall clocks a test sets, each by itself: a shim in front of libc, compiled where the test runs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster import shims
from tests.cluster.harness import Cluster


def why_no_shim(folder: Path) -> str | None:
    """Compiles it to `folder`/clock_shim.so; else why that cannot be done here."""
    return shims.why_not("clock_shim", folder)


class WallClockCluster(Cluster):
    """A cluster of nodes with wall clocks of their own; `folder` holds the compiled shim."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        for name in self.nodes:
            self.set_clock(name, 0.0)

    def set_clock(self, name: str, seconds: float, *, is_synchronised: bool = False) -> None:
        """The node's wall clock is wrong by this from now on, whether or not it runs; what its kernel says of it."""
        with self._file(name).open("r+b" if self._file(name).exists() else "xb") as file:
            file.write(struct.pack("=qq", int(seconds * 1e9), is_synchronised))

    def command(self, name: str, extra: Sequence[str] = ()) -> list[str]:
        shim = [f"LD_PRELOAD={self.folder / 'clock_shim.so'}", f"WALL_CLOCK_FILE={self._file(name)}"]
        return ["/usr/bin/env", *shim, *super().command(name, extra)]

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.clock"


def best_clock_cluster(folder: Path) -> type[Cluster]:
    """A WallClockCluster, or a cluster that says why its clocks cannot be set; compiles the shim to `folder`."""
    reason = why_no_shim(folder)
    if reason is None:
        return WallClockCluster
    return type("OneClockCluster", (Cluster,), {"not_injected": (f"wall clocks that step: {reason}",)})
