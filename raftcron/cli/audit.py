"""`raftcron audit ...`: the record of every write, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from raftcron.cli.printing import is_table, print_list, print_one, printed
from raftcron.cli.remote import client, path, reading, remote
from raftcron.cli.root import PREFIX, Noun
from raftcron.cli.saving import place_of, replacing
from raftcron.errors import InvalidError, RaftcronError

COLUMNS: Final = {
    "INDEX": "index",
    "AT": "at",
    "PRINCIPAL": "principal",
    "FROM": "remote",
    "NODE": "node",
    "METHOD": "method",
    "PATH": "path",
    "SUMMARY": "summary",
}
PAGE: Final = 1_000


@click.group(cls=Noun)
def audit() -> None:
    """Read and check the record of every write."""


@audit.command("list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Items at most, newest first.")
@printed
@reading
@remote
def list_(limit: int, addr: Sequence[str], output: str) -> None:
    """List what was written, by whom, when, and from where."""
    print_list(client(addr).audit(limit), output, "index", COLUMNS, ("NODE", "FROM", "METHOD", "PATH"))


@audit.command()
@click.option(
    "--receipt",
    type=click.Path(path_type=Path),
    help="File that keeps how far the chain had come: what was seen then may not be gone or changed.  "
    "Made where it is not there, renewed where all is well.",
)
@click.option(
    "--file", type=click.Path(path_type=Path), help="Check a saved answer of GET /v1/audit instead of a node."
)
@printed
@reading
@remote
def verify(receipt: Path | None, file: Path | None, addr: Sequence[str], output: str) -> None:
    """Check the chain of hashes from the oldest item that is kept to the newest."""
    from raftcron.core.audit import faults

    if receipt is not None:
        receipt = place_of(receipt)  # a pipe would be waited for
    trail = _from_file(file) if file is not None else _from_cluster(addr)
    found = faults(trail.items, trail.chain)
    if receipt is not None and receipt.exists():
        found += _compared(trail, _read(receipt))
    if found:
        raise RaftcronError("the audit trail is not whole:\n  " + "\n  ".join(found[:20]))
    if receipt is not None:
        _write(receipt, trail)
    chain = trail.chain
    click.echo(
        f"{PREFIX}whole: {len(trail.items)} items, {chain.count} ever, {chain.dropped} dropped by the bound; "
        f"the newest has the hash {chain.head.hex()}",
        err=True,
    )
    if not is_table(output):
        told = {"items": len(trail.items), "count": chain.count, "dropped": chain.dropped, "head": chain.head.hex()}
        print_one(told, output, "head")


class _Trail(NamedTuple):
    """All that is kept, oldest first, and how far the chain has come."""

    items: list[Any]
    chain: Any


def _from_cluster(addr: Sequence[str]) -> _Trail:
    """The chain as of the first page, which has the newest; what later items dropped meanwhile, as of the last."""
    pages: list[Mapping[str, Any]] = []
    asking = client(addr)
    while not pages or pages[-1]["next_cursor"] is not None:
        cursor = pages[-1]["next_cursor"] if pages else None
        pages.append(asking.request("GET", path("audit"), query={"limit": PAGE, "cursor": cursor}).body)
    newest, oldest = pages[0]["chain"], pages[-1]["chain"]
    chain = newest | {"dropped": oldest["dropped"], "before": oldest["before"]}
    return _trail([item for page in pages for item in page["items"]], chain)


def _from_file(file: Path) -> _Trail:
    answer = _read(file)
    try:
        return _trail(answer["items"], answer["chain"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidError(f"{file}: is no answer of GET /v1/audit: {error!r} is missing or wrong") from error


def _trail(items: Sequence[Mapping[str, Any]], chain: Mapping[str, Any]) -> _Trail:
    from raftcron.core.audit import CHAIN, AuditChain, AuditItem
    from raftcron.core.instant import parse_rfc3339

    found = [
        AuditItem(
            index=item["index"],
            at=parse_rfc3339(item["at"]),
            principal=item["principal"],
            node=item["node"],
            remote=item["remote"] or "",
            method=item["method"],
            path=item["path"],
            summary=item["summary"],
            hash=bytes.fromhex(item["hash"]),
        )
        for item in items
    ]
    found.sort(key=lambda item: item.index)
    head, before = bytes.fromhex(chain["head"]), bytes.fromhex(chain["before"])
    return _Trail(found, AuditChain(CHAIN, chain["count"], head, chain["dropped"], before))


def _compared(trail: _Trail, receipt: Mapping[str, Any]) -> list[str]:
    """What contradicts an earlier receipt: how many items there were then, and the hash of the newest."""
    try:
        count, seen = int(receipt["count"]), bytes.fromhex(receipt["head"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"the receipt cannot be read: {error!r} is missing or wrong") from error
    chain = trail.chain
    if chain.count < count:
        return [f"there were {count} items when the receipt was made, and there are {chain.count}: a tail is gone"]
    place = count - chain.dropped
    if place < 0:
        return []  # what the receipt names has left by the bound since
    now = chain.before if place == 0 else trail.items[place - 1].hash if place <= len(trail.items) else b""
    return [] if now == seen else [f"item {count} is not the one that the receipt names: what was there was changed"]


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidError(f"{file}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InvalidError(f"{file}: holds no object")
    return content


def _write(file: Path, trail: _Trail) -> None:
    with replacing(file) as opened:
        opened.write(json.dumps({"count": trail.chain.count, "head": trail.chain.head.hex()}).encode() + b"\n")
