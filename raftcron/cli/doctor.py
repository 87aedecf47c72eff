"""`raftcron doctor`: asks each node in turn, and says what is wrong with the cluster and what to do about it."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click

from raftcron import __version__
from raftcron.cli.printing import coloured, is_table, print_list, printed, say, terminal_width
from raftcron.cli.remote import addresses, client, remote
from raftcron.errors import RaftcronError

LAG_MAX: Final = 10_000  # entries that a node may be behind
OFFSET_MAX_MS: Final = 1_000  # of a node's clock; decisions stop at max-clock-skew, 5 s
STALL_MAX_SECONDS: Final = 1.0  # of a node's loop; above the election timeout it costs the lead
ANSWER_SECONDS: Final = 5.0  # of one node
LEAST_DETAIL: Final = 30  # characters a line, on whatever terminal

_METRIC: Final = re.compile(r"^raftcron_([a-z_]+) (\S+)$", re.MULTILINE)


class Finding(NamedTuple):
    """`verdict` is ok, warning or error."""

    verdict: str
    what: str
    detail: str


class View(NamedTuple):
    """What one node says: of the cluster, and of itself in numbers."""

    cluster: Mapping[str, Any]
    metrics: Mapping[str, float]


@click.command()
@printed
@remote
def doctor(addr: Sequence[str], output: str) -> None:
    """Look at every node of the cluster: reachable, one leader, equal state, clocks, versions, nothing lost.

    Members that --addr does not name are asked too.  Exit code 1 if something is wrong; warnings alone are 0.
    """
    findings = list(_findings(addr))
    if is_table(output):
        _print(findings, terminal_width())
    else:
        print_list([one._asdict() for one in findings], output, "what", {})
    counts = Counter(one.verdict for one in findings)
    if is_table(output):
        told = [
            f"{counts[kind]} {kind}{'s' if counts[kind] > 1 else ''}" for kind in ("error", "warning") if counts[kind]
        ]
        say(", ".join(told) if told else "all is well")
    if counts["error"]:
        raise click.exceptions.Exit(RaftcronError.exit_code)


def _print(findings: Sequence[Finding], room: int | None) -> None:
    verdict = max((len(one.verdict) for one in findings), default=0)
    what = max((len(one.what) for one in findings), default=0)
    indent = verdict + what + 4
    for one in findings:
        most = None if room is None else max(room - indent, LEAST_DETAIL)
        lines = [one.detail]
        if most is not None:
            lines = textwrap.wrap(one.detail, most, break_long_words=False, break_on_hyphens=False)
        click.echo(f"{coloured(one.verdict.ljust(verdict))}  {one.what.ljust(what)}  {lines[0]}")
        for line in lines[1:]:
            click.echo(" " * indent + line)


def _findings(addr: Sequence[str]) -> Iterator[Finding]:
    views: dict[str, View] = {}
    asked = list(addresses(addr))
    for address in asked:  # grows by the members that those who answer name
        try:
            name, view = _look(address)
        except RaftcronError as error:
            yield Finding("error", f"node at {address}", f"does not answer: {_reason(error, address)}")
            continue
        if name in views:
            continue
        views[name] = view
        known = {text.partition("://")[2] or text for text in asked}
        is_named = {member["http"]: member for member in view.cluster["members"] if member.get("http")}
        for http, member in is_named.items():
            if http not in known and member["alive"] and member["name"] not in views:
                asked.append(f"{address.partition('://')[0]}://{http}" if "://" in address else http)
    if not views:
        yield Finding(
            "error",
            "cluster",
            "no node answers: are they running (`raftcron dev`, `raftcron server`), and is --addr where they listen?",
        )
        return
    clusters = {name: view.cluster for name, view in views.items()}
    yield from _identity(clusters)
    yield from _leaders(clusters)
    newest = max(clusters.values(), key=lambda view: view["commit_index"])
    for member in newest["members"]:
        yield from _member(member, newest, views.get(member["name"]))
    yield from _digests(clusters)
    yield from _clock(clusters)
    yield from _numbers(views)
    yield from _membership(newest)


def _look(address: str) -> tuple[str, View]:
    """The name of the node there, and what it says.  RaftcronError: it says nothing."""
    nodes = client([address], ANSWER_SECONDS)
    answer = nodes.request("GET", "/v1/cluster")
    try:
        text = b"".join(nodes.stream("/metrics")).decode("utf-8", "replace")
        metrics = {name: float(number) for name, number in _METRIC.findall(text)}
    except (RaftcronError, ValueError):
        metrics = {}  # a token without the right to see them
    return answer.headers.get("raftcron-node", address), View(answer.body, metrics)


def _reason(error: RaftcronError, address: str) -> str:
    """Without what the line says already."""
    found = re.search(rf"{re.escape(address)}: ([^;]*)", error.detail)
    return found[1] if found else error.detail


def _identity(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    ids = {str(view.get("cluster_id")) for view in clusters.values() if view.get("cluster_id")}
    if len(ids) > 1:
        yield Finding(
            "error", "cluster", f"these nodes are of {len(ids)} different clusters: look at --addr and --peer"
        )


def _leaders(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    named = {view["leader"] for view in clusters.values() if view["leader"] is not None}
    if not named:
        yield Finding("error", "leader", "no node knows one: is a majority of the voters up and connected?")
    elif len(named) > 1:
        yield Finding("warning", "leader", f"nodes name {', '.join(sorted(named))}: one of them is behind; ask again")
    else:
        yield Finding("ok", "leader", f"{named.pop()}, epoch {max(view['epoch'] for view in clusters.values())}")


def _member(member: Mapping[str, Any], newest: Mapping[str, Any], view: View | None) -> Iterator[Finding]:
    name, what = member["name"], f"member {member['name']}"
    if not member["alive"] and view is None:
        yield Finding(
            "error",
            what,
            f"is not heard ({member['standing']}): start it; is its disk lost, `raftcron cluster replace {name}`; is "
            f"it gone for good, `raftcron cluster remove {name}`",
        )
        return
    if not member["alive"]:
        yield Finding("warning", what, "answers here, but the others do not hear it: is its Raft port reachable?")
    lag = newest["commit_index"] - (member["applied_index"] or 0)
    if lag > LAG_MAX:
        yield Finding("warning", what, f"is {lag:,} entries behind: it catches up, or its disk or CPU is too slow")
    offset = member.get("clock_offset_ms")
    if offset is not None and abs(offset) > OFFSET_MAX_MS:
        yield Finding("warning", what, f"its clock is {offset} ms off: is it synchronised (chrony, ntpd)?")
    if member["standing"] != "voter":
        yield Finding("warning", what, f"does not vote yet: {member['standing']}")
    if member.get("drained"):
        yield Finding("warning", what, f"gets no new runs (drained): `raftcron cluster drain {name} --undo` ends that")
    stall = 0.0 if view is None else view.metrics.get("loop_stall_seconds_max", 0.0)
    if stall > STALL_MAX_SECONDS:
        yield Finding(
            "warning", what, f"stood still for {stall:.1f} s once: too little processor, a slow disk, or it was paused"
        )
    yield Finding("ok", what, f"{member['role']}, applied {member['applied_index']}")


def _digests(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Equal index means equal state (semantics I7)."""
    known: dict[int, tuple[str, str]] = {}
    compared = 0
    for name, view in clusters.items():
        for index, digest in view["digests"]:
            other, theirs = known.setdefault(index, (name, digest))
            compared += other != name
            if theirs != digest:
                yield Finding(
                    "error", "state", f"{name} and {other} differ at index {index}: stop both and ask for help"
                )
                return
    if compared:
        yield Finding("ok", "state", f"equal at {compared:,} indices that were compared")


def _clock(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    doubting = sorted(name for name, view in clusters.items() if view.get("clock_untrusted"))
    if doubting:
        yield Finding(
            "error",
            "time",
            f"{', '.join(doubting)}: no majority of clocks agrees, so nothing is decided on them: set the clocks "
            "right, or `raftcron cluster accept-time` if the leader's is",
        )


def _numbers(views: Mapping[str, View]) -> Iterator[Finding]:
    """What the nodes count: nothing lost, alerts that were told."""
    recounted = [name for name, view in views.items() if "conservation_difference" in view.metrics]
    wrong = [name for name in recounted if views[name].metrics["conservation_difference"] != 0]
    if wrong:
        yield Finding(
            "error",
            "decisions",
            f"{', '.join(sorted(wrong))} counted other times than were decided: keep the data, and ask for help",
        )
    elif recounted:
        yield Finding("ok", "decisions", "no scheduled time is missing or doubled in what was recounted")
    overdue = max((view.metrics.get("conservation_overdue_jobs", 0) for view in views.values()), default=0)
    if overdue:
        yield Finding(
            "warning", "decisions", f"{overdue:.0f} jobs are behind: the leader has too much to do, or catches up"
        )
    failed = sum(view.metrics.get("alerts_failed_total", 0) for view in views.values())
    if failed:
        yield Finding(
            "warning", "alerts", f"{failed:.0f} could not be delivered: the leader's log says to whom and why"
        )


def _membership(newest: Mapping[str, Any]) -> Iterator[Finding]:
    voters = [member for member in newest["members"] if member["standing"] == "voter"]
    if voters and len(voters) % 2 == 0:
        told = f"{len(voters)} voters stand no more failures than {len(voters) - 1}"
        if len(voters) == 2:
            told = "both voters are needed for every write: the loss of either stops the cluster"
        yield Finding("warning", "members", f"{told}; `raftcron cluster add NAME` makes them {len(voters) + 1}")
    for field in ("version", "croniter", "tzdata"):
        found = {str(member.get(field)) for member in newest["members"] if member.get(field)}
        if len(found) > 1:
            yield Finding("warning", field, f"nodes differ: {', '.join(sorted(found))}: finish the upgrade")
        elif field == "version" and found and found != {__version__}:
            yield Finding("warning", field, f"the nodes have {found.pop()}, this program is {__version__}")
