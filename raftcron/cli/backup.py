"""`raftcron backup` and `raftcron restore`: an archive is checked on this side, too, when it is saved and before it
is sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from raftcron.cli.printing import is_table, print_one, printed, sending
from raftcron.cli.remote import client, path, remote
from raftcron.cli.root import PREFIX
from raftcron.errors import InvalidError

PIECE_BYTES = 64 << 10
RESTORE_SECONDS = 600.0  # until its answer; a million jobs take minutes


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@printed
@remote
def backup(file: Path, addr: Sequence[str], output: str) -> None:
    """Save jobs, calendars, groups, sealed secrets and the default route of alerts in FILE, as of one moment.

    FILE is replaced once the whole archive has come and is right; only its owner may read it.
    """
    from raftcron.core.archive import Reader

    reader, beside = Reader(), file.with_name(file.name + ".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as opened, _bar("saving") as bar:
            for piece in client(addr).backup():
                opened.write(piece)
                for block in reader.feed(piece):
                    bar.update(len(block.rows))
                if reader.head is not None:
                    bar.length = max(1, sum(reader.head.counts.values()))
            head = reader.finish()
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(file)
    except OSError as error:
        raise InvalidError(f"{file}: cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    said = ", ".join(f"{count} {kind}" for kind, count in head.counts.items())
    click.echo(f"{PREFIX}saved {file}: {said}, as of index {head.index}", err=True)
    if not is_table(output):
        print_one({"file": str(file), **head.counts, "index": head.index}, output, "file")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Check the archive, say what would be done, and do nothing.")
@click.option("-y", "--yes", "is_sure", is_flag=True, help="Do not ask whether what is not in FILE may be deleted.")
@printed
@remote
def restore(file: Path, dry_run: bool, is_sure: bool, addr: Sequence[str], output: str) -> None:
    """Put what FILE holds in the place of all jobs, calendars, groups and the default route of alerts: all or nothing.

    Those that are not in FILE are deleted.  Times between the backup and now are not owed.
    """
    from raftcron.client.api import BACKUP
    from raftcron.client.sync import Upload

    content = _checked(file)
    if not dry_run and not is_sure and sys.stdin.isatty():  # who is asked by a script has made up their mind
        gone = "All jobs, calendars and groups, and a default route of alerts, that are not in"
        click.confirm(f"{gone} {file} will be deleted. Go on?", abort=True)
    nodes = client(addr, RESTORE_SECONDS)
    query: dict[str, Any] = {"dry_run": True} if dry_run else {}
    # The node checks, stages and swaps in all of it before it answers.
    with sending(len(content), "sending", "putting in place") as told:
        body = Upload(content, told)
        answer = nodes.request("POST", path("restore"), body, query=query, headers={"Content-Type": BACKUP}).body
    for name in answer["missing_secrets"]:
        click.echo(f"{PREFIX}cannot be opened here, write it again: {name}", err=True)
    print_one(answer, output, "index")


def _checked(file: Path) -> bytes:
    """The archive's bytes, after a look at each of them."""
    from raftcron.core.archive import Reader

    reader = Reader()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidError(f"{file}: cannot be read: {error}") from error
    with _bar("checking", len(content)) as bar:
        for at in range(0, len(content), PIECE_BYTES):
            piece = content[at : at + PIECE_BYTES]
            for _ in reader.feed(piece):
                pass
            bar.update(len(piece))
    reader.finish()
    return content


def _bar(label: str, length: int = 1) -> Any:
    """On stderr, and nothing where that is no terminal."""
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())
