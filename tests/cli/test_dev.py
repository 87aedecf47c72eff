"""`raftcron dev` up to its nodes' start, and the same nodes in Procfile and scripts/local_cluster."""

from __future__ import annotations

import os
import re
import shlex
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raftcron.cli import main
from raftcron.config import load

ROOT = Path(__file__).parents[2]


def dev(*args: str) -> Result:
    return CliRunner().invoke(main, ["dev", *args], env={"RAFTCRON_CLUSTER_SECRET": None})


def taken_port() -> tuple[socket.socket, int]:
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    return holder, holder.getsockname()[1]


def test_ports_in_use_are_named_before_anything_starts(tmp_path: Path) -> None:
    """A taken port is exit code 2 with its number and the options that choose others."""
    holder, port = taken_port()
    with holder:
        result = dev("--nodes", "1", "--data", str(tmp_path / "d"), "--http-port", str(port), "--raft-port", "1")
    assert result.exit_code == 2
    assert str(port) in result.stderr
    assert "--http-port" in result.stderr


def test_port_ranges_that_meet_are_named(tmp_path: Path) -> None:
    """HTTP and Raft ports of different nodes must not meet."""
    result = dev("--data", str(tmp_path / "d"), "--http-port", "7301", "--raft-port", "7303")
    assert result.exit_code == 2
    assert "7303" in result.stderr


def test_the_cluster_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """The first start makes a random secret that only its owner can read; the next one keeps it."""
    data = tmp_path / "d"
    holder, port = taken_port()
    with holder:
        dev("--data", str(data), "--http-port", str(port))
        secret = data / "cluster-secret"
        first = secret.read_text()
        dev("--data", str(data), "--http-port", str(port))
    assert re.fullmatch(r"[0-9a-f]{64}\n", first)
    assert secret.read_text() == first
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert list(data.iterdir()) == [secret]


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A file in the way is exit code 2, in words."""
    (tmp_path / "file").write_text("")
    assert dev("--data", str(tmp_path / "file")).exit_code == 2
    result = dev("--data", str(tmp_path / "file" / "below"))
    assert result.exit_code == 2
    assert "choose another directory" in result.stderr


def test_settings_of_the_environment_are_checked_once(tmp_path: Path) -> None:
    """A bad variable ends `dev` itself, not each node in turn."""
    env = {"RAFTCRON_LEASE": "soon", "RAFTCRON_CLUSTER_SECRET": None}
    result = CliRunner().invoke(main, ["dev", "--data", str(tmp_path / "d")], env=env)
    assert result.exit_code == 2
    assert "RAFTCRON_LEASE 'soon'" in result.stderr


def test_the_procfile_lists_the_three_nodes_of_dev() -> None:
    """Every line is a usable `raftcron server` command with the names, ports and peers of the local cluster."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    assert len(lines) == 3
    data = set()
    for index, line in enumerate(lines):
        process, _, command = line.partition(": ")
        words = shlex.split(command)
        assert words[1:4] == ["exec", "raftcron", "server"]
        flags: dict[str, object] = {"peer": []}
        rest = words[4:]
        assert rest.pop() == "--allow-shell"
        for flag, value in zip(rest[::2], rest[1::2], strict=True):
            name = flag.removeprefix("--")
            if name == "peer":
                flags["peer"] = [*flags["peer"], value]  # type: ignore[misc]
            else:
                flags[name] = value
        settings = load(flags, {"RAFTCRON_CLUSTER_SECRET": "for-this-machine-only"})
        assert (process, settings.name) == (f"n{index + 1}", f"n{index + 1}")
        assert (settings.http.port, settings.raft.port) == (7101 + index, 7201 + index)
        assert list(settings.voters) == ["n1", "n2", "n3"]
        data.add(settings.data_dir)
    assert len(data) == 3


@pytest.mark.parametrize("script", ["local_cluster", "test", "check", "venv", "../.ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    """What the README names can be run as it stands."""
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False, timeout=30).returncode == 0


@pytest.mark.parametrize("version", ["3.10", "none"])
def test_a_python_that_is_too_old_is_said_so(tmp_path: Path, version: str) -> None:
    """scripts/local_cluster names what it needs where there is no Python that is new enough."""
    old = tmp_path / "python"
    if version != "none":
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "PYTHON": str(old)}
    done = subprocess.run(
        [str(ROOT / "scripts" / "local_cluster")], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr
