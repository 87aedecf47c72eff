"""The measure of snapshots still measures: it builds a state by entries, writes it, and reads it back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "scripts" / "benchmarks" / "snapshot_process.py"
RECORDS = 1_000


def test_a_small_state_goes_out_and_comes_back(tmp_path: Path) -> None:
    """As many jobs, and an ended run of each; whatever the program asserts of them holds."""
    for arguments in (("write", str(tmp_path / "blocks"), str(RECORDS)), ("read", str(tmp_path / "blocks"), "on")):
        command = [sys.executable, str(PROGRAM), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
