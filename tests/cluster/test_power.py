"""Power cuts and lost disks under a load of writes: what was acknowledged is there, and a stranger stays out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.chaos.campaign import unleash
from tests.chaos.checker import Needs, judge
from tests.chaos.faults import Round
from tests.cluster.disks import Disk, DiskCluster, best_disk_cluster, why_no_disks

LOSSES = ("power-follower", "power-leader", "power-all", "wipe", "power-all")
WITHOUT_POWER_CUTS = ("leader", "wipe")


def needs_disks() -> None:
    if (reason := why_no_disks()) is not None:
        pytest.skip(f"no power is cut: this machine cannot mount an ext4 file system from a file: {reason}")


def test_a_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    """Synced bytes are there after it, others are not: otherwise the test below would judge a cut that cuts nothing."""
    needs_disks()
    disk = Disk(tmp_path, "probe", 32)
    disk.make()
    try:
        synced = disk.path / "synced"
        with synced.open("wb") as file:
            file.write(b"1" * 5000)
            file.flush()
            os.fsync(file.fileno())
            (disk.path / "not synced").write_bytes(b"2" * 5000)
            file.write(b"3" * 5000)
            file.flush()
            disk.cut_power()
        disk.unmount()
        disk.mount()
        assert synced.read_bytes() == b"1" * 5000
        assert not (disk.path / "not synced").exists()
    finally:
        disk.remove()


async def test_one_history_through_power_cuts_and_a_lost_disk(tmp_path: Path) -> None:
    """A follower, the leader and all at once lose what they had not synced; a wiped node is refused: one history.

    Where no power can be cut, which the verdict tells, the leader is killed and a node is wiped.
    """
    make = best_disk_cluster()
    losses = LOSSES if issubclass(make, DiskCluster) else WITHOUT_POWER_CUTS
    began = time.monotonic()
    rounds = [Round(kind, in_flight=True, down_seconds=0.3, quiet_seconds=0.5) for kind in losses]
    verdict = judge(await unleash(tmp_path, 3, rounds, make=make), Needs.of_faults(losses))
    print(verdict.table())
    print(f"{time.monotonic() - began:.1f} s")
    assert verdict.not_injected == make.not_injected
    assert verdict.word == "passed", f"\n{verdict.table()}\nevidence: {tmp_path / 'evidence.json'}"
