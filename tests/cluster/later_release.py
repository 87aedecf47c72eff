"""A later release as a process, as far as a test can have one: the shipped node, whose entries are of the next version.

It reads either version.  Run as a script it is the command `raftcron`.
"""

from __future__ import annotations

from raftcron.core import codec
from raftcron.core.commands import Entry

THIS, LATER = bytes([codec.ENTRY_VERSION]), bytes([codec.ENTRY_VERSION + 1])
_encode, _decode = codec.encode_entry, codec.decode_entry


def encode_entry(entry: Entry) -> bytes:
    return LATER + _encode(entry)[1:]


def decode_entry(body: bytes | memoryview) -> Entry:
    body = bytes(body)
    return _decode(THIS + body[1:] if body[:1] == LATER else body)


if __name__ == "__main__":
    codec.encode_entry, codec.decode_entry = encode_entry, decode_entry  # before anybody else has taken their names
    from raftcron.cli import main

    main(prog_name="raftcron")
