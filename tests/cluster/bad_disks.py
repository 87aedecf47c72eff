"""Real nodes whose journals' disks are slow or fail when a test says so: a shim in front of libc."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.harness import Cluster


class Faults(NamedTuple):
    """What is wrong with a disk; the order is disk_shim.c's."""

    sync_delay_us: int = 0
    sync_errno: int = 0
    write_errno: int = 0
    is_short: int = 0  # a write that fails has taken half of its bytes


class BadDiskCluster(Cluster):
    """A cluster of nodes with a disk of its own each; `folder` holds the compiled shim."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        for name in self.nodes:
            self.set_disk(name, Faults())

    def set_disk(self, name: str, faults: Faults) -> None:
        """This is wrong with the node's disk from now on, whether or not it runs."""
        with self._file(name).open("r+b" if self._file(name).exists() else "xb") as file:
            file.write(struct.pack("=qqqq", *faults))

    def command(self, name: str, extra: Sequence[str] = ()) -> list[str]:
        shim = [
            f"LD_PRELOAD={self.folder / 'disk_shim.so'}",
            f"DISK_FILE={self._file(name)}",
            f"DISK_PREFIX={self.nodes[name].data / 'journal'}",
        ]
        return ["/usr/bin/env", *shim, *super().command(name, extra)]

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.disk"
