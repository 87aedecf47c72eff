"""`raftcron dev`: a whole cluster on this machine, for a first look and for development."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from raftcron.cli.root import PREFIX
from raftcron.cli.supervisor import NodeProcess, Supervisor
from raftcron.config import Address, Settings, load
from raftcron.errors import ConfigurationError

HOST: Final = "127.0.0.1"
MAX_NODES: Final = 9  # more say nothing new about one machine
SECRET_FILE: Final = "cluster-secret"  # noqa: S105  # a file name

STOP_EXTRA_SECONDS: Final = 15.0  # beyond the grace of running commands: for what a node does before and after

WELCOME: Final = """
{count} ready:
{nodes}
A first job, on any node:
  curl -sS -X PUT http://{first}/v1/jobs/hello -H 'Content-Type: application/json' \\
    -d '{{"schedule": "@every 2s", "executor": {{"type": "shell", "command": "echo hello from $RAFTCRON_NODE"}}}}'
and its runs, from any other:
  curl -sS 'http://{other}/v1/jobs/hello/runs?limit=3'
The data is in {data}. Ctrl-C stops all nodes.
"""


@click.command()
@click.option("--nodes", type=click.IntRange(1, MAX_NODES), default=3, show_default=True, help="How many.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("raftcron-data"),
    show_default=True,
    help="Where the nodes keep their data, each in a directory of its own; kept when they stop.",
)
@click.option("--http-port", type=int, default=7101, show_default=True, help="HTTP port of the first node.")
@click.option("--raft-port", type=int, default=7201, show_default=True, help="Raft port of the first node.")
@click.option("--restart/--no-restart", default=True, help="Start a node that died again.  [default: restart]")
def dev(nodes: int, data: Path, http_port: int, raft_port: int, restart: bool) -> None:
    """Run a whole local cluster until Ctrl-C.

    Nodes n1, n2, ... listen on consecutive ports of 127.0.0.1 and may run shell jobs.  Their other settings come from
    the RAFTCRON_ variables (`raftcron server --help`).  The cluster secret is made at the first start and kept in the
    data directory, unless RAFTCRON_CLUSTER_SECRET is set.
    """
    planned = [_flags(index, nodes, data, http_port, raft_port) for index in range(nodes)]
    _make_data_directory(data)
    settings = [load(flags, os.environ) for flags in planned]
    _check_ports(settings)
    raise SystemExit(asyncio.run(_run(planned, settings, data, restart)))


def _flags(index: int, nodes: int, data: Path, http_port: int, raft_port: int) -> dict[str, Any]:
    """What node number `index` is told, by setting name."""
    flags: dict[str, Any] = {
        "name": f"n{index + 1}",
        "data-dir": str(data / f"n{index + 1}"),
        "http": f"{HOST}:{http_port + index}",
        "raft": f"{HOST}:{raft_port + index}",
        "peer": [f"n{peer + 1}={HOST}:{raft_port + peer}" for peer in range(nodes)],
        "allow-shell": True,
    }
    if not {"RAFTCRON_CLUSTER_SECRET", "RAFTCRON_CLUSTER_SECRET_FILE"} & os.environ.keys():
        flags["cluster-secret-file"] = str(data / SECRET_FILE)
    return flags


def _argv(flags: dict[str, Any]) -> list[str]:
    # -P: a file of the current directory must not stand in for a module of the node's.
    argv = [sys.executable, "-P", "-m", "raftcron", "server"]
    for name, value in flags.items():
        if value is True:
            argv.append(f"--{name}")
        else:
            argv += [f"--{name}={one}" for one in (value if isinstance(value, list) else [value])]
    return argv


def _make_data_directory(data: Path) -> None:
    """The directory, with a cluster secret that only its owner can read."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = data / SECRET_FILE
        if secret.exists():
            return
        # Complete or not there: a start that was interrupted leaves no empty secret.
        draft = data / f".{SECRET_FILE}.{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        draft.rename(secret)
    except OSError as error:
        raise ConfigurationError(f"--data {data} cannot be used: {error.strerror}: choose another directory") from error


def _check_ports(settings: Sequence[Settings]) -> None:
    """ConfigurationError that names every port which is not free, before any node starts."""
    seen: set[Address] = set()
    taken = []
    for address in [one.http for one in settings] + [one.raft for one in settings]:
        if address in seen or not _is_free(address):
            taken.append(str(address.port))
        seen.add(address)
    if taken:
        raise ConfigurationError(
            f"port {', '.join(taken)} of {HOST} {'is' if len(taken) == 1 else 'are'} taken: is another local cluster "
            "running? Stop what listens there, or choose others with --http-port and --raft-port"
        )


def _is_free(address: Address) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError:
            return False
    return True


def welcome(settings: Sequence[Settings], data: Path) -> str:
    """What is said once all nodes are ready: where they are, and the README's first job."""
    return WELCOME.format(
        count="1 node is" if len(settings) == 1 else f"{len(settings)} nodes are",
        nodes="\n".join(f"  {one.name}  http://{one.http}" for one in settings),
        first=settings[0].http,
        other=settings[:2][-1].http,
        data=data.absolute(),
    )


async def _run(planned: Iterable[dict[str, Any]], settings: Sequence[Settings], data: Path, restarts: bool) -> int:
    is_terminal = sys.stdout.isatty()
    grace_seconds = settings[0].shutdown_grace_ms / 1000
    nodes = [
        NodeProcess(one.name, _argv(flags), ready=f"raftcron {one.name} is ready at ")
        for flags, one in zip(planned, settings, strict=True)
    ]

    def write(line: str) -> None:
        try:
            click.echo(line)
        except BrokenPipeError:  # nobody reads any more, as in `raftcron dev | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            supervisor.stop()

    supervisor = Supervisor(
        nodes,
        write=write,
        restarts=restarts,
        is_coloured=is_terminal and not os.environ.get("NO_COLOR"),
        stop_seconds=grace_seconds + STOP_EXTRA_SECONDS,
    )

    def stop() -> None:
        if supervisor.is_stopping:
            text = "stopping at once"
        else:
            text = f"stopping all nodes; running commands get {grace_seconds:g} s, Ctrl-C again ends them"
        supervisor.stop()
        write(("\n" if is_terminal else "") + PREFIX + text)  # the terminal has written ^C on the line

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return await supervisor.run(lambda: write(welcome(settings, data)))
