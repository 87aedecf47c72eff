"""Clusters whose nodes have a disk each, an ext4 file system in a file, so that their power can be cut.

A power cut stops the process, shuts the file system down without writing its log (EXT4_IOC_SHUTDOWN), so that nothing
reaches the disk any more, then ends the process, and mounts the disk again: what was not synced is gone.  The process
has to stand still before: a machine without power tells nobody what its last sync came to, and an fdatasync that meets
the shutdown may say that it has succeeded though its bytes are lost (17 of 250 cuts, Linux 6.18; none once it stands).
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.harness import Cluster, eventually

DISK_MIB = 512  # the files are sparse
SHUTDOWN, WITHOUT_LOG = 0x8004587D, 2  # linux/fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
COMMIT_SECONDS = 60  # the file system's own syncs are rare, so that they do not help
PREFIX = "raftcron-test"


def call(*command: str) -> None:
    """RuntimeError with what it said if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Disk:
    """One file system; `path` is where it is mounted."""

    def __init__(self, folder: Path, name: str, mib: int = DISK_MIB) -> None:
        self._image = folder / f"{PREFIX}-{os.getpid()}-{name}.img"
        self.path = folder / f"{PREFIX}-{os.getpid()}-{name}.disk"
        self._mib = mib

    def make(self) -> None:
        """RuntimeError where this process may not."""
        with self._image.open("wb") as file:
            file.truncate(self._mib << 20)
        call("mkfs.ext4", "-q", "-F", str(self._image))
        self.path.mkdir()
        self.mount()

    def mount(self) -> None:
        call("mount", "-o", f"loop,commit={COMMIT_SECONDS}", str(self._image), str(self.path))

    def unmount(self) -> None:
        call("umount", str(self.path))

    def cut_power(self) -> None:
        """From now on nothing is written to it: every call for that fails."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        finally:
            os.close(handle)

    def remove(self) -> None:
        if self.path.is_mount():
            call("umount", "--lazy", str(self.path))
        self._image.unlink(missing_ok=True)


def sweep() -> None:
    """Unmount what a test run that was killed has left."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        path = Path(line.split()[1])
        if path.name.startswith(f"{PREFIX}-") and not Path(f"/proc/{path.name.split('-')[2]}").exists():
            subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=False)


@cache
def why_no_disks() -> str | None:
    """None if this process can mount disks and cut their power, else the reason."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder), "probe", 16)
        try:
            disk.make()
            disk.cut_power()
        except (RuntimeError, OSError) as error:
            return str(error)
        finally:
            disk.remove()
    return None


class DiskCluster(Cluster):
    """Each node's data directory is on a disk of its own."""

    def __init__(self, folder: Path, *, size: int = 3, extra: Sequence[str] = (), **options: Any) -> None:
        super().__init__(folder, size=size, extra=extra, **options)
        self.disks = {name: Disk(folder, name) for name in self.nodes}
        for name, node in self.nodes.items():
            node.data = self.disks[name].path / "data"

    async def __aenter__(self) -> Self:
        sweep()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for disk in self.disks.values():
                disk.make()
            return await super().__aenter__()
        except BaseException:
            self._remove_disks()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            self._remove_disks()

    def _remove_disks(self) -> None:
        for disk in self.disks.values():
            disk.remove()

    async def _stands_still(self, name: str) -> bool:
        """As soon as SIGSTOP has come: what its threads wait for in the kernel ends there, and none goes on."""
        process = self.nodes[name].process
        assert process is not None
        if not self.nodes[name].alive:
            return True  # it has just ended by itself
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T", f"{name} is in state {state}"
        return True

    async def cut_power(self, *names: str) -> None:
        """Of these nodes at once; afterwards they are dead and their disks hold what had been synced."""
        alive = [name for name in names if self.nodes[name].alive]
        for name in alive:
            self._signal(self.nodes[name], signal.SIGSTOP)
        for name in alive:
            await eventually(partial(self._stands_still, name), within=60, what=f"{name} stands still")
        for name in names:
            self.disks[name].cut_power()
        await self.kill(*alive)
        for name in names:

            async def unmounted(disk: Disk = self.disks[name]) -> bool:
                try:
                    disk.unmount()
                except RuntimeError as error:  # its children are still ending
                    raise AssertionError(str(error)) from error
                return True

            await eventually(unmounted, within=60, what=f"nobody uses the disk of {name}")
            self.disks[name].mount()


def best_disk_cluster() -> type[Cluster]:
    """A DiskCluster, or a cluster that says why no power is cut."""
    reason = why_no_disks()
    if reason is None:
        return DiskCluster
    return type("PoweredCluster", (Cluster,), {"not_injected": (f"power cuts: {reason}",)})
