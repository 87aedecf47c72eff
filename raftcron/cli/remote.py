"""What every command that asks a node shares: where the nodes are, who asks, and how a run is awaited."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftcron.cli.printing import is_table, print_one, say
from raftcron.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from raftcron.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

AWAITED_RUN_FAILED = 7  # exit code
POLL_SECONDS = 0.25  # between two looks at an awaited run
OVER = frozenset({"succeeded", "failed", "timed_out", "cancelled", "lost", "skipped"})


def remote(command: Command) -> Command:
    """Gives a command `--addr` as its parameter `addr`, and what `client` reads: --token-file, --cacert, --cert."""
    options = (
        click.option(
            "--cert",
            metavar="FILE",
            expose_value=False,
            callback=_kept,
            help="A certificate and its key, in PEM, for nodes with --tls-client-ca.  [RAFTCRON_CERT]",
        ),
        click.option(
            "--cacert",
            metavar="FILE",
            expose_value=False,
            callback=_kept,
            help="Certificates, in PEM, that https nodes are trusted by instead of the system's.  [RAFTCRON_CACERT]",
        ),
        click.option(
            "--token-file",
            metavar="FILE",
            expose_value=False,
            callback=_kept,
            help="File that holds the token to show.  [RAFTCRON_TOKEN is the token itself]",
        ),
        click.option(
            "--addr",
            multiple=True,
            metavar="URL",
            help="A node's HTTP address; repeat it, each is tried.  "
            "[RAFTCRON_ADDR, comma separated; default http://127.0.0.1:7101, :7102 and :7103]",
        ),
    )
    for option in options:
        command = option(command)
    return command


def reading(command: Command) -> Command:
    """Gives a command that only reads `--stale`, which `client` heeds."""
    return click.option(
        "--stale",
        is_flag=True,
        default=None,
        expose_value=False,
        callback=_kept,
        help="Let the node answer from what it has, without asking the leader: works without a quorum, may be behind.",
    )(command)


def awaitable(command: Command) -> Command:
    """Gives a command that asks for a run `--wait` and `--follow`, and `is_awaited`, `is_followed` as parameters."""
    command = click.option(
        "--follow", "is_followed", is_flag=True, help="Wait, and print its output as it comes instead of the run."
    )(command)
    return click.option(
        "--wait", "is_awaited", is_flag=True, help="Wait for its end; exit code 7 unless it succeeded."
    )(command)


def _kept(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        context.meta[f"{__name__}.{parameter.name}"] = value


def _said(name: str) -> Any:
    return click.get_current_context().meta.get(f"{__name__}.{name}")


def token() -> str | None:
    """The token of --token-file, else of RAFTCRON_TOKEN.  InvalidError: the file cannot be read, or holds none."""
    file = _said("token_file")
    if file is None:
        return os.environ.get("RAFTCRON_TOKEN") or None
    try:
        with Path(file).open(encoding="ascii") as opened:
            text = opened.read(4_096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"--token-file {file}: cannot be read: {error}") from error
    if not text or any(char.isspace() for char in text):
        raise InvalidError(f"--token-file {file}: holds no token: it is one line, as `raftcron token create` prints it")
    return text


def addresses(addr: Sequence[str]) -> Sequence[str]:
    """Where the nodes are: `--addr`, else RAFTCRON_ADDR, else a local cluster."""
    from raftcron.client.addresses import DEFAULT_ADDRESSES

    named = [entry for entry in os.environ.get("RAFTCRON_ADDR", "").split(",") if entry.strip()]
    return addr or named or DEFAULT_ADDRESSES


def client(addr: Sequence[str], timeout_seconds: float = 15.0) -> Client:
    """A client for the nodes of `--addr`, else of RAFTCRON_ADDR, else of a local cluster; --stale counts."""
    from raftcron.cli.stale import StaleClient
    from raftcron.client import Client

    ca, cert = (_said(name) or os.environ.get(f"RAFTCRON_{name.upper()}") or None for name in ("cacert", "cert"))
    try:
        made = (StaleClient if _said("stale") else Client)(
            addresses(addr),
            token(),
            timeout_seconds=timeout_seconds,
            patience_seconds=0,
            discover=False,
            ca=ca,
            certificate=cert,
        )
    except OSError as error:  # ssl.SSLError is one, too
        given = " or ".join(f"--{name} {file}" for name, file in (("cacert", ca), ("cert", cert)) if file)
        raise InvalidError(f"{given}: cannot be used: {error.strerror or error}; expected PEM") from error
    click.get_current_context().call_on_close(made.close)
    return made


def path(*segments: str) -> str:
    """The path of the API under /v1, each segment quoted."""
    from urllib.parse import quote

    return "/".join(("/v1", *(quote(segment, safe="") for segment in segments)))


def print_run(nodes: Client, started: dict[str, Any], output: str, *, is_awaited: bool, is_followed: bool) -> None:
    """Print a run that was just asked for, after its end where that is awaited; then exit code 7 unless it succeeded.

    Where it is followed, its output comes first.
    """
    try:
        if is_followed and started["state"] not in OVER:
            write_output(nodes.output(started["id"], follow=True))
        if is_awaited or is_followed:
            started = _awaited(lambda: nodes.request("GET", path("runs", started["id"])).body, started)
    except KeyboardInterrupt:
        run_id = started["id"]
        say(f"run {run_id} goes on: `raftcron run logs -f {run_id}`, `raftcron run cancel {run_id}`")
        raise
    if not is_followed or not is_table(output):
        print_one(started, output, "id")
    if (is_awaited or is_followed) and started["state"] != "succeeded":
        say(f"run {started['id']}: {how_it_ended(started)}")
        raise click.exceptions.Exit(AWAITED_RUN_FAILED)


def write_output(pieces: Iterable[bytes]) -> None:
    """What a run has written, as it is, piece by piece as it comes."""
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def how_it_ended(run: Mapping[str, Any]) -> str:
    """A run's state, with the reason that it has."""
    why = [run.get("reason"), run.get("error"), run.get("blocked_by") and f"blocked by {run['blocked_by']}"]
    told = "; ".join(str(one) for one in why if one)
    return f"{run['state']} ({told})" if told else str(run["state"])


def _awaited(look: Callable[[], dict[str, Any]], found: dict[str, Any]) -> dict[str, Any]:
    """Looks until the run is over; a leader's change meanwhile is no reason to give up."""
    import time

    while found["state"] not in OVER:
        time.sleep(POLL_SECONDS)
        try:
            found = look()
        except UnavailableError as error:
            say(f"{error.detail}; looking again")
    return found
