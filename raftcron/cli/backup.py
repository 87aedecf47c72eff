"""`raftcron backup` and `raftcron restore`: an archive is checked on this side, too, when it is saved and before it
is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

import click

from raftcron.cli.printing import is_table, print_one, printed, sending
from raftcron.cli.remote import client, path, remote
from raftcron.cli.root import PREFIX
from raftcron.cli.saving import place_of, replacing
from raftcron.errors import InvalidError

STANDARD = "-"  # stdout or stdin in place of a file
PIECE_BYTES = 64 << 10
RESTORE_SECONDS = 600.0  # until its answer; a million jobs take minutes


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@printed
@remote
def backup(file: str, addr: Sequence[str], output: str) -> None:
    """Save jobs, calendars, groups, sealed secrets and the default route of alerts in FILE, as of one moment.

    FILE is replaced once the whole archive has come and is right; only its owner may read it.  With - it goes to
    stdout as it comes: it is whole if the exit code is 0.
    """
    from raftcron.core.archive import Reader

    if file == STANDARD and not is_table(output):
        raise click.UsageError(f"-o {output} would stand in the archive on stdout: leave it out, or name a FILE")
    reader = Reader()
    with _opened(file) as opened, _bar("saving") as bar:
        for piece in client(addr).backup():
            opened.write(piece)
            for block in reader.feed(piece):
                bar.update(len(block.rows))
            if reader.head is not None:
                bar.length = max(1, sum(reader.head.counts.values()))
        opened.flush()
        head = reader.finish()
    said = ", ".join(f"{count} {kind}" for kind, count in head.counts.items())
    place = "to stdout" if file == STANDARD else file
    click.echo(f"{PREFIX}saved {place}: {said}, as of index {head.index}", err=True)
    if not is_table(output):
        print_one({"file": file, **head.counts, "index": head.index}, output, "file")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Check the archive, say what would be done, and do nothing.")
@click.option("-y", "--yes", "is_sure", is_flag=True, help="Do not ask whether what is not in FILE may be deleted.")
@printed
@remote
def restore(file: str, dry_run: bool, is_sure: bool, addr: Sequence[str], output: str) -> None:
    """Put what FILE holds in the place of all jobs, calendars, groups and the default route of alerts: all or nothing.

    Those that are not in FILE are deleted.  Times between the backup and now are not owed.  FILE may be - for stdin.
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


def _opened(file: str) -> AbstractContextManager[IO[bytes]]:
    """Where the archive goes."""
    if file != STANDARD:
        return replacing(place_of(Path(file), "name another one, or - for stdout"), 0o600)
    if sys.stdout.isatty():
        raise InvalidError("stdout is a terminal, where no archive is shown: name a FILE, or raftcron backup - > FILE")
    return nullcontext(sys.stdout.buffer)


def _read(file: str) -> bytes:
    if file == STANDARD and sys.stdin.isatty():
        raise InvalidError("stdin is a terminal, where no archive is typed: name a FILE, or raftcron restore - < FILE")
    try:
        return sys.stdin.buffer.read() if file == STANDARD else Path(file).read_bytes()
    except OSError as error:
        raise InvalidError(f"{file}: cannot be read: {error.strerror}") from error


def _checked(file: str) -> bytes:
    """The archive's bytes, after a look at each of them."""
    from raftcron.core.archive import Reader

    reader, content = Reader(), _read(file)
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
