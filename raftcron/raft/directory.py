"""A node's data directory from outside: whose it is, and how what it holds of the cluster is put aside.

For a node whose disk is given up (`raftcron cluster replace`): the directory has to be empty, and nobody should have
to delete what may be the last copy of something.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from raftcron import wire
from raftcron.errors import ConfigurationError, FatalError
from raftcron.raft.device import Device
from raftcron.raft.segment import Kind, UnknownVersion, decode_checkpoint, decode_header, records

LOCKS = ("lock", "journal/lock")  # who holds one of them uses the directory
REPLICATED = ("journal", "snapshots")  # all of it comes back from the other nodes
BEGINNING_BYTES = 64 << 10  # of a segment: its first record says whose it is


@contextmanager
def held(directory: Path, device: Device) -> Iterator[None]:
    """Keep every process off the directory.  ConfigurationError: one uses it, or it cannot be used."""
    with ExitStack() as locks:
        for path in (directory / name for name in LOCKS):
            if path.parent.is_dir():
                try:
                    locks.callback(device.close, device.lock(path))
                except BlockingIOError:
                    raise ConfigurationError(
                        f"{directory}: a raftcron process has it; `fuser {path}` names it: end it first"
                    ) from None
        yield


def owner(directory: Path, device: Device) -> str | None:
    """The node that the directory belongs to; None where it is empty, or too damaged to tell."""
    journal = directory / REPLICATED[0]
    names = device.names(journal) if journal.is_dir() else []
    for name in sorted(name for name in names if name.endswith(".segment")):
        data = memoryview(device.read(journal / name, BEGINNING_BYTES))
        try:
            header = decode_header(bytes(data))
            if header is None:
                continue
            for _, kind, body in records(data, len(data), header.salt):
                if kind == Kind.IDENTITY:
                    return str(wire.unpack(body)[0])
                if kind in (Kind.CHECKPOINT, Kind.BASE):
                    return decode_checkpoint(body).name
        except (UnknownVersion, ValueError, struct.error):
            continue
    return None


def put_aside(directory: Path, device: Device, name: str) -> Path | None:
    """Move what the directory holds of the cluster into `name` below it, durably; None if there is nothing.

    FatalError: it cannot be moved.
    """
    found = [directory / part for part in REPLICATED if (directory / part).exists()]
    if not found:
        return None
    place = directory / name
    try:
        device.make_directory(place)
        for path in found:
            path.rename(place / path.name)
        device.sync_directory(place)
        device.sync_directory(directory)
    except OSError as error:
        raise FatalError(
            f"cannot move {', '.join(map(str, found))} to {place}: {error.strerror or error}. Move them by hand"
        ) from error
    return place
