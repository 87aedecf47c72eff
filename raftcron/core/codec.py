"""msgpack to commands and back, with a version byte in front; a version that this release does not know is named."""

from __future__ import annotations

import msgspec

from raftcron.core.commands import Entry
from raftcron.core.unreadable import UNREADABLE
from raftcron.errors import DamagedError, NewerVersionError

ENTRY_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
_PREFIX = bytes([ENTRY_VERSION])


def encode_entry(entry: Entry) -> bytes:
    """An entry as bytes: one version byte, then msgpack."""
    if entry.origin is None:  # most entries: the bytes that they always had
        return _PREFIX + _encoder.encode((entry.epoch, entry.at, entry.command))
    return _PREFIX + _encoder.encode(entry)


def decode_entry(body: bytes | memoryview) -> Entry:
    """The entry in `body`.

    Raises NewerVersionError if a newer release wrote it, DamagedError if it is of a known version and not an entry:
    no leader writes such bytes, so going on would be guessing.
    """
    version = body[0] if len(body) else 0
    if version > ENTRY_VERSION:
        raise NewerVersionError(
            f"a log entry has version {version}, this release knows up to {ENTRY_VERSION}: "
            "a newer leader wrote it; upgrade this node"
        )
    if version != ENTRY_VERSION:
        raise DamagedError(f"a log entry begins with version {version}, which no release has written")
    try:
        return _decoder.decode(body[1:])
    except UNREADABLE as error:
        raise DamagedError(f"a log entry of version {version} cannot be decoded: {error}") from error
