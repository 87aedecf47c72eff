"""`raftcron cluster ...`: the cluster as a node sees it, also without a quorum; who belongs to it, and who leads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from raftcron.cli.complete import node_names
from raftcron.cli.printing import is_table, print_data, print_done, print_list, print_one, printed
from raftcron.cli.remote import client, path, remote
from raftcron.cli.root import PREFIX, Noun
from raftcron.errors import ConfigurationError, ConflictError, RaftcronError, UnavailableError

if TYPE_CHECKING:
    from raftcron.client import Answer, Client
    from raftcron.raft.device import Device

COLUMNS: Final = {
    "NAME": "name",
    "ROLE": "role",
    "STANDING": "standing",
    "ALIVE": "alive",
    "HTTP": "http",
    "DRAINED": "drained",
    "RAFT": "raft",
    "APPLIED": "applied_index",
    "CLOCK MS": "clock_offset_ms",
    "INCARNATION": "incarnation",
    "VERSION": "version",
    "CRONITER": "croniter",
    "TZDATA": "tzdata",
}
ASIDE: Final = ("TZDATA", "CRONITER", "INCARNATION", "VERSION", "RAFT", "CLOCK MS", "APPLIED")
POLL_SECONDS: Final = 0.2
HELD_SECONDS: Final = 5.0  # for the start of a node that fails
PATIENCE_SECONDS: Final = 60.0  # for the lease of a node that has just ended


def waiting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--wait` and `--timeout`, as `wait` and `timeout`."""
    for option in (
        click.option(
            "--timeout", type=click.FloatRange(0.1), default=300.0, show_default=True, help="Seconds to --wait at most."
        ),
        click.option("--wait/--no-wait", help="Return when it votes.  [default: --no-wait, and say what to do next]"),
    ):
        command = option(command)
    return command


@click.group(cls=Noun)
def cluster() -> None:
    """Look at the cluster, and change who belongs to it."""


@cluster.command()
@printed
@remote
def status(addr: Sequence[str], output: str) -> None:
    """Show the leader, where the log stands, and every member."""
    _print_cluster(client(addr).request("GET", path("cluster")).body, output, "cluster_id")


@cluster.command()
@printed
@remote
def members(addr: Sequence[str], output: str) -> None:
    """List the members: voters, learners, and who is awaited."""
    print_list(_members(client(addr)), output, "name", COLUMNS, ASIDE)


@cluster.command()
@click.argument("name")
@click.option("--raft", required=True, metavar="HOST:PORT", help="Where the other members will reach it.")
@click.option("--http", metavar="HOST:PORT", help="Where its HTTP API will be reached.  [default: as it says itself]")
@waiting
@printed
@remote
def add(addr: Sequence[str], output: str, name: str, raft: str, http: str | None, wait: bool, timeout: float) -> None:
    """Add a member: a node with an empty data directory, which learns and then votes."""
    body = {"name": name, "raft": raft} | ({"http": http} if http is not None else {})
    nodes = client(addr)
    found = _patiently(lambda: nodes.request("POST", path("cluster", "members"), body=body)).body["members"]
    if not _has_come(found, name):
        peers = " ".join(f"--peer {one['name']}={one['raft']}" for one in found)
        place = f"--data-dir DIR --raft {raft}" + (f" --http {http}" if http is not None else "")
        told = "Start it on an empty directory, with --cluster-secret-file FILE if the others have it"
        _say(f"{name} is awaited. {told}: raftcron server --name {name} {place} {peers}")
    _end(nodes, found, name, output, wait, timeout)


@cluster.command()
@click.argument("name", shell_complete=node_names)
@printed
@remote
def remove(addr: Sequence[str], output: str, name: str) -> None:
    """Remove a member for good; a leader hands over first."""
    client(addr).request("DELETE", path("cluster", "members", name))
    _say(f"{name}: removed. It ends by itself; under this name only an empty data directory can be added again")
    print_done(name, "removed", output)


@cluster.command()
@click.argument("name", shell_complete=node_names)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The node's data directory, on this machine: what it holds of the cluster is moved to DIR/damaged-TIME.",
)
@click.option("--raft", metavar="HOST:PORT", help="Where the other members will reach it, if elsewhere.")
@click.option("--http", metavar="HOST:PORT", help="Where its HTTP API will be reached, if elsewhere.")
@waiting
@printed
@remote
def replace(
    addr: Sequence[str],
    output: str,
    name: str,
    data_dir: Path | None,
    raft: str | None,
    http: str | None,
    wait: bool,
    timeout: float,
) -> None:
    """Give up what a member's disk holds, and let it begin anew from the other nodes.

    For a node whose data directory is damaged or lost.  Its process must have ended.  With --data-dir this is all that
    is to be done before it is started again; without it the directory must be empty by then.
    """
    nodes = client(addr)
    body = {key: value for key, value in (("raft", raft), ("http", http)) if value is not None}

    def ask() -> list[dict[str, Any]]:
        answer = _patiently(lambda: nodes.request("POST", path("cluster", "members", name, "replace"), body=body))
        return list(answer.body["members"])

    if data_dir is None:
        found = ask()
        _say(f"{name} is awaited. Start it on an empty data directory")
    else:
        found = _replace_here(name, data_dir, ask)
    _end(nodes, found, name, output, wait, timeout)


@cluster.command()
@click.argument("name", required=False, shell_complete=node_names)
@printed
@remote
def transfer(addr: Sequence[str], output: str, name: str | None) -> None:
    """Hand over the lead, to NAME or to whoever has all entries."""
    body = {} if name is None else {"to": name}
    print_one(client(addr).request("POST", path("cluster", "transfer"), body=body).body, output, "leader")


@cluster.command()
@click.argument("node", shell_complete=node_names)
@click.option("--undo", is_flag=True, help="Let it have runs again.")
@printed
@remote
def drain(addr: Sequence[str], output: str, node: str, undo: bool) -> None:
    """Give NODE no new runs until it starts again; what runs there goes on, and a leader hands over."""
    body = {"node": node, "drain": not undo}
    _print_cluster(client(addr).request("POST", path("cluster", "drain"), body=body).body, output, "leader")


@cluster.command("accept-time")
@click.option("--leader", metavar="NODE", help="Whose clock you looked at; refused where another node leads.")
@printed
@remote
def accept_time(leader: str | None, addr: Sequence[str], output: str) -> None:
    """Say that the leader's clock is right, when it waits to be told.

    For a lone node whose clock is far from where it was, and for voters that do not agree.  Look at that clock first:
    what is decided for a time that was wrong stays decided.
    """
    _print_cluster(client(addr).accept_time(leader), output, "time")


@cluster.command()
@click.option("--after", metavar="ID", help="Begin behind this event.  [default: with what comes now]")
@click.option("--kind", "kinds", multiple=True, help="Only run, job, leader, node or calendar events; repeat it.")
@printed
@remote
def events(addr: Sequence[str], after: str | None, kinds: Sequence[str], output: str) -> None:
    """Print what happens, as it happens, until Ctrl-C; nodes may come and go meanwhile.

    JSON is a line each, YAML a document each, and -o name the ids alone, behind which --after begins.
    Exit code 3: the events behind --after are no longer held.
    """
    for event in client(addr).events(after):
        if kinds and event.event not in kinds:
            continue
        told = {"id": event.id, "event": event.event, "data": event.data}
        if output == "json":
            click.echo(json.dumps(told, ensure_ascii=False))
        elif output == "yaml":
            click.echo("---")
            print_data(told, output)
        elif output == "name":
            if event.id is not None:
                click.echo(event.id)
        else:
            rest = " ".join(f"{key}={value}" for key, value in event.data.items() if value is not None and key != "at")
            click.echo(f"{event.data.get('at', '-')}  {event.id or '-'}  {event.event}  {rest}")


# ---- details


def _print_cluster(found: Mapping[str, Any], output: str, name: str) -> None:
    if not is_table(output):
        print_one(found, output, name)
        return
    aside = ("members", "digests", "editions")
    print_one({name: value for name, value in found.items() if name not in aside}, output, "")
    click.echo()
    print_list(found["members"], output, "name", COLUMNS, ASIDE)


def _members(nodes: Client) -> list[dict[str, Any]]:
    return list(nodes.request("GET", path("cluster")).body["members"])


def _has_come(found: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(one["name"] == name and one["standing"] != "awaited" for one in found)


def _votes(found: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(one["name"] == name and one["standing"] == "voter" for one in found)


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """What is refused for some seconds only is asked again when they have passed."""
    import time

    waited = 0.0
    while True:
        try:
            return ask()
        except ConflictError as error:
            seconds = error.retry_after_seconds
            if seconds is None or waited + seconds > PATIENCE_SECONDS:
                raise
            _say(f"{error.detail}; waiting {seconds:g} s")
        time.sleep(seconds)
        waited += seconds


def _replace_here(name: str, directory: Path, ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """First the cluster gives up the disk, then what is on it is put aside: a refusal has moved nothing."""
    import datetime

    from raftcron.raft import directory as place
    from raftcron.raft.device import SystemDevice

    if not directory.is_dir():
        raise ConfigurationError(f"--data-dir {directory}: there is no such directory")
    device = SystemDevice()
    try:
        with _taken(place.held, directory, device):
            owner = place.owner(directory, device)
        if owner not in (None, name):
            raise ConfigurationError(f"--data-dir {directory} belongs to node {owner}, not to {name}")
        found = ask()  # which may take a lease; who supervises the node may try to start it all the while
        with _taken(place.held, directory, device):
            now = datetime.datetime.now(datetime.UTC)
            aside = place.put_aside(directory, device, f"damaged-{now:%Y%m%dT%H%M%SZ}")
    except OSError as error:
        raise ConfigurationError(f"--data-dir {directory}: {error.strerror or error}") from error
    if aside is not None:
        _say(f"what {name} held is in {aside} now; delete it when {name} votes again")
    _say(f"{name} is awaited. Start it again, as it was started before")
    return found


@contextmanager
def _taken(
    held: Callable[[Path, Device], AbstractContextManager[None]], directory: Path, device: Device
) -> Iterator[None]:
    """The directory, once the start of a node that is bound to fail has let go of it."""
    import time

    give_up = time.monotonic() + HELD_SECONDS
    while True:
        with ExitStack() as stack:
            try:
                stack.enter_context(held(directory, device))
            except ConfigurationError:
                if time.monotonic() > give_up:
                    raise
            else:
                yield
                return
        time.sleep(0.05)


def _end(nodes: Client, found: list[dict[str, Any]], name: str, output: str, wait: bool, timeout: float) -> None:
    """Print the members; with --wait when the one that was asked for votes."""
    if wait:
        found = _until_it_votes(nodes, found, name, timeout)
    print_list(found, output, "name", COLUMNS, ASIDE)


def _until_it_votes(nodes: Client, found: list[dict[str, Any]], name: str, timeout: float) -> list[dict[str, Any]]:
    import time

    until = time.monotonic() + timeout
    trouble = ""
    while not _votes(found, name):
        if time.monotonic() > until:
            what = "still learns" if _has_come(found, name) else "has not come; is it started, on an empty directory"
            raise UnavailableError(f"after {timeout:g} s {name} {what}? Its own log says more{trouble}")
        time.sleep(POLL_SECONDS)
        try:
            found = _members(nodes)
        except RaftcronError as error:
            trouble = f"; the last answer was: {error.detail}"
    return found


def _say(text: str) -> None:
    click.echo(f"{PREFIX}{text}", err=True)
