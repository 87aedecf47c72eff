"""Real nodes whose wall clocks a test sets, each by itself: a shim in front of libc, compiled where the test runs."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.harness import Cluster

SOURCE = Path(__file__).with_name("clock_shim.c")


def why_no_shim(folder: Path) -> str | None:
    """Compiles it to `folder`/clock_shim.so; else why that cannot be done here."""
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        return "there is no C compiler (cc, gcc or clang): install one, on Debian `apt-get install gcc libc6-dev`"
    done = subprocess.run(
        [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / "clock_shim.so", SOURCE, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"{compiler} cannot compile {SOURCE.name}: {done.stderr[:500]}"


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
