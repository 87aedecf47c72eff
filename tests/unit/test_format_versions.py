"""docs/journal.md and docs/snapshot.md: the versions that they name are those that are written, and read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raftcron import wire
from raftcron.core.codec import ENTRY_VERSION, encode_entry
from raftcron.core.commands import Entry, Lead
from raftcron.core.image import OLDEST_VERSION, image
from raftcron.core.state import State
from raftcron.raft import configuration, proposals, seam, segment, snapshot_file
from raftcron.raft.configuration import Configuration

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("journal", "snapshot")}
INSIDE = re.compile(r"^\| ([a-z-]+) \| (\d+|-) \| (\d+|-) \| (?:`0x(\d\d)`|the version as a byte), ", re.MULTILINE)

CLUSTER = Configuration("c1", {})
ENVELOPE = proposals.Envelope("n1", 1, 1, 1, b"")
TAGGED = {  # what this release writes, its first byte behind which the version stands, and the oldest that it reads
    "envelope": (proposals.encode(ENVELOPE), proposals.ENVELOPE_VERSION),
    "formation": (configuration.encode_formation(CLUSTER), 1),
    "members": (configuration.encode(CLUSTER), configuration.MEMBERS_VERSION),
}
PLAIN = {  # likewise, where the first byte is the version
    "body": (encode_entry(Entry(1, 0, Lead("n1", 1, 1, "", "", ""))), ENTRY_VERSION),
    "image": (next(image(State())), OLDEST_VERSION),
}


@pytest.mark.parametrize(
    ("page", "version"), [("journal", segment.FORMAT_VERSION), ("snapshot", snapshot_file.FORMAT_VERSION)]
)
def test_a_page_is_about_the_version_of_the_file_that_is_written(page: str, version: int) -> None:
    """Its heading says so, and the last row of its history."""
    text = PAGES[page]
    assert re.findall(r"^## Format, version (\d+)$", text, re.MULTILINE) == [str(version)]
    history = text.split("| version |")[1].split("\n\n")[0]
    assert re.findall(r"^\| (\d+) \|", history, re.MULTILINE)[-1] == str(version)


def test_what_is_inside_a_file_has_the_version_that_its_page_names() -> None:
    """First byte, version and oldest version that is read, of each kind of entry and of a snapshot's blocks."""
    told = {name: tuple(told) for page in PAGES.values() for name, *told in INSIDE.findall(page)}
    assert told == {
        "no-op": ("-", "-", seam.NO_OP.hex()),
        **{
            name: (str(wire.unpack(data[1:])[0]), str(oldest), data[:1].hex())
            for name, (data, oldest) in TAGGED.items()
        },
        **{name: (str(data[0]), str(oldest), "") for name, (data, oldest) in PLAIN.items()},
    }
