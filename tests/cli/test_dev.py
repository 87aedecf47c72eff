"""`raftcron dev` up to its nodes' start, and the same nodes in Procfile and scripts/local_cluster."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from raftcron.cli import main
from raftcron.cli.dev import welcome
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


def test_the_first_job_is_that_of_the_readme() -> None:
    """What `dev` shows at the README's ports are the README's own commands, to the letter."""
    settings = [load({"name": f"n{i}", "data-dir": "d", "http": f"127.0.0.1:{7100 + i}"}, {}) for i in (1, 2, 3)]
    shown = welcome(settings, Path("d"))
    commands = re.findall(r"^  (curl (?:.*\\\n)*.*)$", shown, re.MULTILINE)
    blocks = re.findall(r"^```sh\n(.*?)\n```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert [command.replace("\n    -d", "\n  -d") for command in commands] == blocks[:2]


def test_a_cluster_of_one_has_no_other_node() -> None:
    """With one node both commands of the text go to it."""
    settings = load({"name": "n1", "data-dir": "d", "http": "127.0.0.1:7301"}, {})
    shown = welcome([settings], Path("d"))
    assert "1 node is ready:" in shown
    assert len(re.findall("127.0.0.1:7301/v1/jobs/hello", shown)) == 2


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


@pytest.mark.parametrize("script", ["local_cluster", "test", "check", "venv", "programs", "../.ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    """What the README names can be run as it stands."""
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False, timeout=30).returncode == 0


def test_the_fuzzer_asks_200_requests_an_operation_as_each_role() -> None:
    """Where its command line says nothing else."""
    fuzz = SourceFileLoader("fuzz", str(ROOT / "scripts" / "fuzz"))
    module = ModuleType("fuzz")
    module.__file__ = fuzz.path
    exec(fuzz.get_code("fuzz"), vars(module))  # type: ignore[arg-type]
    asked = module.asked([])
    assert (asked.examples, asked.role, asked.only) == (200, ["read", "operate", "admin"], "")


@pytest.mark.parametrize("script", ["fuzz", "simulate"])
def test_scripts_in_python_say_what_they_do(script: str) -> None:
    """They can be run as they stand, and --help loads all that they need."""
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def test_a_mirror_that_fails_once_is_asked_again(tmp_path: Path) -> None:
    """The programs of the tests are installed all the same, and what is missing alone."""
    stand_ins = {
        "id": "echo 0",
        "sleep": "exit 0",
        "apt-get": f'echo "$@" >> {tmp_path}/asked; [ "$(grep -c install {tmp_path}/asked)" -gt 1 ]',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    for tool in ("bash", "grep", "cc", "ip", "mkfs.ext4", "mount", "openssl"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/bin/true")
    script = str(ROOT / "scripts" / "programs")
    done = subprocess.run(["bash", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("raftcron: installing the Debian packages curl")
    assert "for all tests, install on Debian" not in done.stderr
    asked = [line.split()[5] for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked == ["update", "install", "update", "install"]


def local_cluster(**environ: str) -> subprocess.CompletedProcess[str]:
    """scripts/local_cluster in this environment and no other."""
    script = str(ROOT / "scripts" / "local_cluster")
    return subprocess.run([script], env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("script", "told"),
    [("#!/bin/sh\necho Python 3.9.2\nexit 1\n", "Python 3.9.2"), ("", "nothing that can be run"), (None, "nothing")],
)
def test_a_wrong_python_is_said_so(tmp_path: Path, script: str | None, told: str) -> None:
    """Where PYTHON names none that is new enough, it is named, with what it is and the command that was called."""
    old = tmp_path / "my python"
    if script is not None:
        # It prints its version and then fails only where it is asked to compare.
        old.write_text(script.replace("exit 1", 'case "$2" in *print*) exit 0;; esac; exit 1'))
        old.chmod(0o755 if script else 0o644)
    done = local_cluster(PATH=os.environ["PATH"], PYTHON=str(old))
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith(f"raftcron: PYTHON={old} is {told}")
    assert first.endswith("Python 3.11 or newer is needed")
    assert second.endswith("scripts/local_cluster")


def test_without_a_python_it_is_said_what_is_needed(tmp_path: Path) -> None:
    """No word of the shell's, but what to install and the command that was called."""
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    done = local_cluster(PATH=str(tmp_path))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "raftcron: Python 3.11 or newer is needed; there is no python3 here"
    assert lines[-1].endswith("scripts/local_cluster")
    assert not any("not found" in line for line in lines)


def own_environment(tmp_path: Path) -> tuple[Path, Path]:
    """A repository with scripts/venv alone, and a directory with a Python, which makes environments, and tools."""
    tree, tools = tmp_path / "tree", tmp_path / "tools"
    (tree / "scripts").mkdir(parents=True)
    tools.mkdir()
    shutil.copy(ROOT / "scripts" / "venv", tree / "scripts" / "venv")
    for name in ("pyproject.toml", "requirements-dev.lock"):
        (tree / name).touch()
    made = 'mkdir -p "$3/bin" && cp "$0" "$3/bin/python3" && ln -s python3 "$3/bin/python"'
    python = f'#!/bin/sh\ncase "$1 $2" in "-m venv") {made};; --version*) echo Python 3.11.7;; esac\n'
    for name, text in {"python3": python, "id": "#!/bin/sh\necho 1000\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for tool in ("bash", "cat", "cp", "cut", "dirname", "ln", "mkdir", "rm", "sh", "sha256sum", "sleep"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    return tree, tools


def test_an_active_environment_is_not_the_one_that_it_is_made_with(tmp_path: Path) -> None:
    """Whoever has activated it has the same as before; it is made anew with the Python behind it, not removed."""
    tree, tools = own_environment(tmp_path)
    venv, outside = tree / ".venv", str(tools)

    def prepared(path: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [str(tree / "scripts" / "venv"), "runtime"]
        return subprocess.run(
            command, env={"PATH": path, **environ}, capture_output=True, text=True, timeout=60, check=False
        )

    done = prepared(outside)
    assert (done.returncode, done.stdout) == (0, f"{venv}\n"), done.stderr
    assert f"making {venv} with {tools}/python3" in done.stderr
    for active in (f"{venv}/bin:{outside}", f"{tree}/scripts/../.venv/bin/:{venv}/bin:{outside}"):
        done = prepared(active)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{venv}\n", "")
    (tree / "pyproject.toml").write_text("changed")
    done = prepared(f"{venv}/bin:{outside}")
    assert (done.returncode, done.stdout) == (0, f"{venv}\n"), done.stderr
    assert f"making {venv} with {tools}/python3" in done.stderr
    done = prepared(outside, PYTHON=f"{venv}/bin/python3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"raftcron: PYTHON={venv}/bin/python3 is of the environment itself")
    assert (venv / "bin" / "python3").exists()
