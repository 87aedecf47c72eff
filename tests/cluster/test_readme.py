"""The README as a user follows it: every command in it, in its order, on its ports, with its effect.

The commands run in a copy of the repository, because they keep data in it and the developer's must stay as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from raftcron.cli.server import server
from raftcron.config import SETTINGS, Settings, load
from tests.cluster.harness import Answer, eventually

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
HTTP_PORTS = (7101, 7102, 7103)
RAFT_PORTS = (7201, 7202, 7203)
PROCESSES = 1 + 3 + 3  # the supervisor, the nodes, a spawner for each

START_SECONDS = 60
BLOCK_SECONDS = 60
STOP_SECONDS = 60
FAILOVER_SECONDS = 30
EVERY_MS = 2_000  # of the README's first job

# Commands in the text that no test runs, and why.
NOT_RUN = {
    "pip install .": "it needs an index of packages; scripts/venv, through which every test came here, does the same",
}


# ---- what the README says


@dataclass(frozen=True)
class Block:
    """One fenced block: `line` is that of its opening fence."""

    language: str
    text: str
    line: int


def fenced_blocks(markdown: str) -> list[Block]:
    """All of them in order; AssertionError for what could hold commands and is not such a block."""
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(markdown.splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened, inside = (number, line.removeprefix("```").strip()), []
            else:
                found.append(Block(opened[1], "\n".join(inside), opened[0]))
                opened = None
        elif opened is not None:
            inside.append(line)
        else:
            odd = line.lstrip().startswith(("```", "~~~")) or line.startswith(("    ", "\t"))
            assert not odd, f"README.md line {number}: write code between lines of ```, the test knows no other way"
    assert opened is None, f"README.md line {opened and opened[0]}: the block does not end"
    return found


def commands_in_text(markdown: str) -> set[str]:
    """The code spans outside of blocks that are commands: a script of ours, or a program with arguments."""
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return {
        span
        for span in spans
        if span.startswith("scripts/")
        or (" " in span and (span.startswith("raftcron ") or shutil.which(span.split()[0]) is not None))
    }


BLOCKS = fenced_blocks(README)
STORY = [block for block in BLOCKS if block.language == "sh"]


def test_the_readme_has_no_other_kind_of_command() -> None:
    """Each block is the two commands of the start, `sh`, which the next test runs, or tests/embed's `python`."""
    first, *others = BLOCKS
    assert first.language == ""
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["scripts/local_cluster", "scripts/test"]
    ports = re.search(r"HTTP on 127\.0\.0\.1:(\d+)-(\d+), Raft on (\d+)-(\d+)", first.text)
    assert ports is not None
    assert [int(port) for port in ports.groups()] == [HTTP_PORTS[0], HTTP_PORTS[-1], RAFT_PORTS[0], RAFT_PORTS[-1]]
    assert {block.language for block in others} == {"sh", "python"}, (
        "a block of another language is not run: make it `sh`"
    )


@pytest.mark.parametrize("command", sorted(commands_in_text(README) - NOT_RUN.keys()))
def test_a_command_in_the_text_exists(command: str) -> None:
    """What the sentences of the README name can be run: a script that is executable, a command that knows itself."""
    words = shlex.split(command)
    if words[0] == "raftcron":
        argv = [sys.executable, "-m", *words, "--help"]
    else:
        script = ROOT / words[0]
        assert os.access(script, os.X_OK), f"this test cannot run `{command}`: teach it, or say in NOT_RUN why not"
        if len(words) == 1:  # local_cluster is run below, and test runs this
            return
        argv = [sys.executable, str(script), *words[1:], "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words[1:] if not word[0].isdigit()), done.stdout  # such a value is free


def test_what_is_not_run_is_still_there() -> None:
    """The list of commands that are not run names no command that has left the README."""
    assert commands_in_text(README) >= NOT_RUN.keys()


def test_ci_runs_the_tests_and_nothing_else(tmp_path: Path) -> None:
    """.ci/run is scripts/test: no arguments, nothing before or after, and its exit code."""
    assert os.access(ROOT / "scripts" / "test", os.X_OK)
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    stand_in = tmp_path / "scripts" / "test"
    stand_in.write_text('#!/bin/sh\necho "scripts/test with $# arguments"\nexit 7\n')
    stand_in.chmod(0o755)
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "scripts/test with 0 arguments\n", "")
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == 1


# ---- the user


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the repository without what .gitignore names; its scripts use the environment that runs this test."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    copy = tmp_path / "raftcron"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *ignored))
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


@pytest.fixture
def free_ports() -> None:
    """The README's own ports are free."""
    taken = []
    for port in (*HTTP_PORTS, *RAFT_PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(port)
    if taken:
        pytest.fail(
            f"this test runs the README on its own ports, and {taken} of 127.0.0.1 are taken: stop what listens there "
            "(a scripts/local_cluster in another terminal?); `ss -ltnp` names it",
            pytrace=False,
        )


def user_environment(home: Path, marker: str) -> dict[str, str]:
    """This process's, with a home of its own, the environment that has raftcron, and `marker` in every child."""
    home.mkdir(exist_ok=True)
    (home / ".curlrc").write_text("fail-with-body\n")  # a status of 400 or more is a failed command
    assert (Path(sys.prefix) / "bin" / "raftcron").exists(), "run the tests with the environment of scripts/venv"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAFTCRON_")}
    path = f"{Path(sys.prefix) / 'bin'}:{inherited['PATH']}"
    return {**inherited, "HOME": str(home), "CURL_HOME": str(home), "READY_VENV": sys.prefix, "PATH": path} | {
        "README_TEST": marker
    }


def marked(marker: str) -> set[int]:
    """The living processes that come from one test, whoever their parent is now."""
    found = set()
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if directory.name.isdigit() and marker.encode() in (directory / "environ").read_bytes():
                found.add(int(directory.name))
    return found


@dataclass
class User:
    """Who follows the README: in this directory, with this environment, asking these ports."""

    tree: Path
    environment: dict[str, str]
    session: aiohttp.ClientSession
    killed_at: float = 0.0

    def run(self, block: Block) -> str:
        """Runs a block as it stands; what it printed.  AssertionError if any command of it fails."""
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", block.text],
            cwd=self.tree,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=BLOCK_SECONDS,
            check=False,
        )
        told = f"README.md line {block.line} ended with {done.returncode}:\n{block.text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, told
        return done.stdout

    async def get(self, port: int, path: str) -> Answer:
        """One question to the node on this port."""
        timeout = aiohttp.ClientTimeout(total=20)
        async with self.session.get(f"http://127.0.0.1:{port}{path}", timeout=timeout) as response:
            return Answer(response.status, response.headers.copy(), await response.text())

    async def ready(self, *ports: int) -> None:
        """Until these nodes are ready."""
        for port in ports:

            async def answers(port: int = port) -> bool:
                return (await self.get(port, "/readyz")).status == 200

            await eventually(answers, within=START_SECONDS, what=f"port {port} is ready")

    async def leader(self, *ports: int) -> str | None:
        """The leader that all these nodes name, or None."""
        named = {(await self.get(port, "/v1/cluster")).expect(200).json["leader"] for port in ports}
        return named.pop() if len(named) == 1 else None

    def pid(self, node: str) -> int:
        """The process of a node, as its data directory names it."""
        return int((self.tree / "data" / "local" / node / "pid").read_text())


def documents(text: str) -> list[Any]:
    """The JSON documents that a block printed one after the other."""
    decoder = json.JSONDecoder()
    found = []
    text = text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found


def milliseconds(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1000)


def times(rows: list[Any]) -> list[int]:
    """The scheduled times that these rows speak of, in order; a summary speaks of several."""
    found: list[int] = []
    for row in rows:
        if row["cause"] in {"schedule", "catch_up"}:
            first, last = row.get("first") or row["scheduled_time"], row.get("last") or row["scheduled_time"]
            found += range(milliseconds(first), milliseconds(last) + 1, EVERY_MS)
    return sorted(found)


# ---- what each block does: code before the yield sees the cluster before the block, code after it what was printed

Output = list[str]
Effect = Callable[[User, Output], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def job_fires(user: User, output: Output) -> AsyncIterator[None]:
    """PUT of the first job: it is there, and fires on its schedule."""
    yield
    assert documents(output[0])[0]["name"] == "hello"

    async def fired() -> bool:
        rows = (await user.get(HTTP_PORTS[0], "/v1/jobs/hello/runs")).expect(200).json["items"]
        return any(row["cause"] == "schedule" and row["state"] == "succeeded" for row in rows)

    await eventually(fired, within=60, what="the first job has fired")


@contextlib.asynccontextmanager
async def runs_are_everywhere(user: User, output: Output) -> AsyncIterator[None]:
    """Its runs are read from another node than the one that took the job."""
    yield
    [page] = documents(output[0])
    succeeded = [row for row in page["items"] if row["state"] == "succeeded"]
    assert succeeded
    for row in succeeded:
        assert row["output_tail"] == f"hello from {row['node']}\n"


@contextlib.asynccontextmanager
async def table_is_printed(user: User, output: Output) -> AsyncIterator[None]:
    """The command line shows them as a table."""
    yield
    heading, *rows = output[0].splitlines()
    assert heading.split()[:2] == ["ID", "JOB"]
    assert rows
    assert all(" hello " in row for row in rows)


@contextlib.asynccontextmanager
async def webhook_is_there(user: User, output: Output) -> AsyncIterator[None]:
    """PUT of the webhook: every node has it, with its class and its next fire at 02:30 in Berlin."""
    yield
    for port in HTTP_PORTS:
        job = (await user.get(port, "/v1/jobs/nightly")).expect(200).json
        assert (job["delivery"], job["executor"]["type"]) == ("at_least_once", "http")
        coming = datetime.fromisoformat(job["next_fire_at"]).astimezone(ZoneInfo("Europe/Berlin"))
        assert (coming.hour, coming.minute) == (2, 30)
        assert coming.weekday() < 5


@contextlib.asynccontextmanager
async def commands_are_obeyed(user: User, output: Output) -> AsyncIterator[None]:
    """Run now, pause, resume, delete: each is answered with its effect, and all of it stays."""

    async def just_ended() -> bool:
        # A run by hand beside one that is due would be skipped, as `overlap` says: most of the two seconds are left.
        [newest] = (await user.get(HTTP_PORTS[0], "/v1/jobs/hello/runs?limit=1")).expect(200).json["items"]
        return newest["state"] == "succeeded" and time.time() * 1000 - milliseconds(newest["scheduled_time"]) < 700

    await eventually(just_ended, within=60, what="the first job has just run")
    yield
    manual, paused, resumed = documents(output[0])
    assert manual["run"]["cause"] == "manual"
    assert (paused["paused"], paused["pause_note"]) == (True, "a walk")
    assert resumed["paused"] is False

    async def ended() -> bool:
        run = (await user.get(HTTP_PORTS[1], f"/v1/runs/{manual['run']['id']}")).expect(200).json
        return bool(run["state"] == "succeeded")

    await eventually(ended, within=60, what="the run by hand has succeeded")
    for port in HTTP_PORTS:
        assert (await user.get(port, "/v1/jobs/nightly")).status == 404
        assert (await user.get(port, "/v1/jobs/hello")).expect(200).json["paused"] is False


@contextlib.asynccontextmanager
async def another_leads(user: User, output: Output) -> AsyncIterator[None]:
    """kill -9 of the leader: another one leads, and the dead node comes back with a new process."""
    killed = await eventually(lambda: user.leader(*HTTP_PORTS), within=FAILOVER_SECONDS, what="all name one leader")
    assert killed is not None
    pid = user.pid(killed)
    yield
    user.killed_at = time.time()
    port = HTTP_PORTS[int(killed.removeprefix("n")) - 1]
    survivors = [other for other in HTTP_PORTS if other != port]

    async def replaced() -> bool:
        return await user.leader(*survivors) not in {None, killed}

    await eventually(replaced, within=FAILOVER_SECONDS, what=f"another node than {killed} leads")

    async def back() -> bool:
        return user.pid(killed) != pid and (await user.get(port, "/readyz")).status == 200

    await eventually(back, within=START_SECONDS, what=f"{killed} is back")


@contextlib.asynccontextmanager
async def nothing_is_missing(user: User, output: Output) -> AsyncIterator[None]:
    """Around the kill each scheduled time has its row, on every node the same."""
    yield
    [page] = documents(output[0])
    assert len(page["items"]) == 5
    shown = times(page["items"])
    assert shown == list(range(shown[0], shown[-1] + 1, EVERY_MS))
    for port in HTTP_PORTS:
        rows = (await user.get(port, "/v1/jobs/hello/runs?limit=500")).expect(200).json["items"]
        kept = times(rows)
        assert kept == list(range(kept[0], kept[-1] + 1, EVERY_MS)), f"port {port}: {rows}"
        assert kept[0] < user.killed_at * 1000 < kept[-1], "the rows lie on both sides of the kill"


EFFECTS: dict[str, Effect] = {
    "PUT http://127.0.0.1:7101/v1/jobs/hello -H": job_fires,
    "http://127.0.0.1:7102/v1/jobs/hello/runs": runs_are_everywhere,
    "raftcron run list": table_is_printed,
    "/v1/jobs/nightly -H": webhook_is_there,
    "/v1/jobs/hello/resume": commands_are_obeyed,
    "kill -9": another_leads,
    "for port in 7101 7102 7103": nothing_is_missing,
}


async def test_the_readme_as_a_user_follows_it(tree: Path, free_ports: None, tmp_path: Path) -> None:
    """A cluster from scripts/local_cluster does what every block of the README says, and Ctrl-C leaves nothing."""
    marker = uuid.uuid4().hex
    environment = user_environment(tmp_path / "home", marker)
    log = tmp_path / "local_cluster.log"
    with log.open("wb") as out:
        cluster = subprocess.Popen(
            ["scripts/local_cluster"],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # as a terminal's foreground job: a process group of its own
        )
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            user = User(tree, environment, session)

            async def told() -> bool:
                if cluster.poll() is not None:
                    raise RuntimeError(f"scripts/local_cluster ended with {cluster.returncode}")
                return "Ctrl-C stops all nodes" in log.read_text()

            await eventually(told, within=START_SECONDS, what="scripts/local_cluster says how to go on")
            await user.ready(*HTTP_PORTS)
            for port in RAFT_PORTS:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            assert (await user.get(HTTP_PORTS[0], "/v1/jobs")).json["items"] == [], "it creates nothing"

            seen: list[str] = []
            for block in STORY:
                output: Output = []
                async with contextlib.AsyncExitStack() as stack:
                    for words, effect in EFFECTS.items():
                        if words in block.text:
                            seen.append(words)
                            await stack.enter_async_context(effect(user, output))
                    output.append(user.run(block))
            assert seen == list(EFFECTS), "each effect belongs to one block, in this order"

        assert len(marked(marker)) >= PROCESSES
        os.killpg(cluster.pid, signal.SIGINT)
        assert cluster.wait(STOP_SECONDS) == 0
        assert marked(marker) == set()
    except BaseException as error:
        error.add_note(f"--- scripts/local_cluster said:\n{log.read_text()[-6_000:]}")
        raise
    finally:
        for pid in marked(marker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cluster.wait(STOP_SECONDS)


# ---- the Procfile


def procfile() -> dict[str, str]:
    """Its processes, name -> command line."""
    lines = [line for line in (ROOT / "Procfile").read_text().splitlines() if line.strip() and not line.startswith("#")]
    parted = [re.fullmatch(r"([A-Za-z0-9_-]+):\s*(.+)", line) for line in lines]
    assert all(parted), lines
    return {match[1]: match[2] for match in parted if match}


def node_settings(command: str) -> Settings:
    """What a line of the Procfile tells its node: assignments, `exec`, then `raftcron server` and its flags."""
    words = shlex.split(command)
    start = words.index("exec")
    assigned = dict(word.split("=", 1) for word in words[:start])
    assert words[start : start + 3] == ["exec", "raftcron", "server"], "exec: a signal must reach the node, not a shell"
    given = server.make_context("server", words[start + 3 :]).params
    return load({row.name: given.get(row.field) for row in SETTINGS}, assigned)


def test_the_procfile_is_one_cluster() -> None:
    """Its three processes are the README's nodes: a name, a directory and ports for each, one list of peers."""
    nodes = {name: node_settings(command) for name, command in procfile().items()}
    assert [settings.name for settings in nodes.values()] == list(nodes) == ["n1", "n2", "n3"]
    assert [settings.http.port for settings in nodes.values()] == list(HTTP_PORTS)
    assert [settings.raft.port for settings in nodes.values()] == list(RAFT_PORTS)
    for settings in nodes.values():
        assert {name: address.port for name, address in settings.peers.items()} == dict(
            zip(nodes, RAFT_PORTS, strict=True)
        )
        assert settings.cluster_secret == nodes["n1"].cluster_secret != b""
        assert settings.notes == ()
    assert len({settings.data_dir for settings in nodes.values()}) == 3


async def test_the_procfile_starts_a_cluster(tree: Path, free_ports: None, tmp_path: Path) -> None:
    """Started as honcho does it, by a shell in the repository, the three get ready and end cleanly at SIGTERM."""
    environment = user_environment(tmp_path / "home", uuid.uuid4().hex)
    logs = {name: tmp_path / f"{name}.log" for name in procfile()}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in procfile().items():
            with logs[name].open("wb") as out:
                processes[name] = subprocess.Popen(
                    ["/bin/sh", "-c", command],
                    cwd=tree,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            user = User(tree, environment, session)
            await user.ready(*HTTP_PORTS)
            assert await user.leader(*HTTP_PORTS) in processes
        assert "note:" not in "".join(log.read_text() for log in logs.values()), "the shell hands the secret on"
        for process in processes.values():
            process.terminate()
        assert {name: process.wait(STOP_SECONDS) for name, process in processes.items()} == dict.fromkeys(processes, 0)
    except BaseException as error:
        error.add_note("\n".join(f"--- {name} said:\n{log.read_text()[-2_000:]}" for name, log in logs.items()))
        raise
    finally:
        for process in processes.values():
            process.kill()
            process.wait(STOP_SECONDS)
