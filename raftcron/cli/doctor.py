"""`raftcron doctor`: asks each node in turn, and says what is wrong with the cluster and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click

from raftcron.cli.printing import print_list, printed
from raftcron.cli.remote import addresses, client, remote
from raftcron.errors import RaftcronError

LAG_MAX: Final = 10_000  # entries that a node may be behind
OFFSET_MAX_MS: Final = 1_000  # of a node's clock; decisions stop at max-clock-skew, 5 s

COLUMNS: Final = {"": "verdict", "WHAT": "what", "DETAIL": "detail"}


class Finding(NamedTuple):
    """`verdict` is ok, warning or error."""

    verdict: str
    what: str
    detail: str


@click.command()
@printed
@remote
def doctor(addr: Sequence[str], output: str) -> None:
    """Look at every node of the cluster: reachable, one leader, equal state, clocks, versions, room.

    Exit code 1 if something is wrong.
    """
    findings = list(_findings(addr))
    print_list([one._asdict() for one in findings], output, "what", COLUMNS)
    if any(one.verdict == "error" for one in findings):
        raise click.exceptions.Exit(RaftcronError.exit_code)


def _findings(addr: Sequence[str]) -> Iterator[Finding]:
    views: dict[str, Mapping[str, Any]] = {}
    for address in addresses(addr):
        try:
            answer = client([address]).request("GET", "/v1/cluster")
        except RaftcronError as error:
            yield Finding("error", f"node at {address}", f"does not answer: {error.detail}")
        else:
            views[answer.headers.get("raftcron-node", address)] = answer.body
    if not views:
        return
    yield from _leaders(views)
    newest = max(views.values(), key=lambda view: view["commit_index"])
    for member in newest["members"]:
        yield from _member(member, newest)
    yield from _digests(views)
    members = [member for member in newest["members"] if member["standing"] == "voter"]
    if len(members) % 2 == 0:
        yield Finding("warning", "members", f"{len(members)} voters stand no more failures than {len(members) - 1}")
    for field in ("version", "croniter", "tzdata"):
        found = {str(member.get(field)) for member in members if member.get(field)}
        if len(found) > 1:
            yield Finding("warning", field, f"nodes differ: {', '.join(sorted(found))}: finish the upgrade")


def _leaders(views: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    named = {view["leader"] for view in views.values() if view["leader"] is not None}
    if not named:
        yield Finding("error", "leader", "no node knows one: is a majority of the voters up and connected?")
    elif len(named) > 1:
        yield Finding("warning", "leader", f"nodes name {', '.join(sorted(named))}: one of them is behind; ask again")
    else:
        yield Finding("ok", "leader", f"{named.pop()}, epoch {max(view['epoch'] for view in views.values())}")


def _member(member: Mapping[str, Any], newest: Mapping[str, Any]) -> Iterator[Finding]:
    name = f"member {member['name']}"
    if not member["alive"]:
        yield Finding("error", name, f"is not heard ({member['standing']}): start it, or `raftcron cluster replace`")
        return
    lag = newest["commit_index"] - (member["applied_index"] or 0)
    if lag > LAG_MAX:
        yield Finding("warning", name, f"is {lag:,} entries behind: it catches up, or its disk or CPU is too slow")
    offset = member.get("clock_offset_ms")
    if offset is not None and abs(offset) > OFFSET_MAX_MS:
        yield Finding("warning", name, f"its clock is {offset} ms off: is it synchronised (chrony, ntpd)?")
    if member["standing"] != "voter":
        yield Finding("warning", name, f"does not vote yet: {member['standing']}")
    yield Finding("ok", name, f"{member['role']}, applied {member['applied_index']}")


def _digests(views: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Equal index means equal state (semantics I7)."""
    known: dict[int, tuple[str, str]] = {}
    compared = 0
    for name, view in views.items():
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
