"""Shims in front of libc (LD_PRELOAD), compiled where the tests run.  Not here: what they do, which their files say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def why_not(name: str, folder: Path) -> str | None:
    """Compiles `name`.c of this directory to `folder`/`name`.so; else why that cannot be done here."""
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        return "there is no C compiler (cc, gcc or clang): install one, on Debian `apt-get install gcc libc6-dev`"
    source = HERE / f"{name}.c"
    done = subprocess.run(
        [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / f"{name}.so", source, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"{compiler} cannot compile {source.name}: {done.stderr[:500]}"
