"""Bounded capture of output."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from raftcron.executors.output import Capture, Shelf, Tail, output_name


@given(st.lists(st.binary(max_size=50)), st.integers(min_value=1, max_value=40))
def test_a_tail_is_the_end_of_what_was_written(parts: list[bytes], limit: int) -> None:
    """Whatever the pieces: the last bytes, less the rest of a character that was cut in two."""
    tail = Tail(limit)
    for part in parts:
        tail.add(part)
    whole = b"".join(parts)
    value = tail.value()
    assert tail.total == len(whole)
    assert whole.endswith(value)
    assert min(len(whole), limit) - 3 <= len(value) <= limit
    if len(whole) <= limit:
        assert value == whole


def test_a_tail_begins_with_a_whole_character() -> None:
    """Cut text stays readable."""
    tail = Tail(4)
    tail.add("aüü€".encode())
    assert tail.value().decode() == "€"


def test_a_small_output_is_kept_whole(tmp_path: Path) -> None:
    """File and tail are the output itself."""
    capture = Capture(str(tmp_path / "a"))
    capture.add(b"one ")
    capture.add(b"two")
    assert capture.close() == (b"one two", 7, 0)
    assert (tmp_path / "a").read_bytes() == b"one two"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_large_output_keeps_head_and_tail_and_counts_the_rest(tmp_path: Path) -> None:
    """Head, a line, tail; when they meet, nothing is counted and nothing is there twice."""
    for total, dropped in ((10_000, 10_000 - 1000 - 4096), (5096, 0), (1001, 0)):
        data = bytes(33 + number % 90 for number in range(total))
        capture = Capture(str(tmp_path / "a"), file_bytes=1000)
        for begin in range(0, total, 300):
            capture.add(data[begin : begin + 300])
        assert capture.close() == (data[-4096:], total, dropped)
        line = f"\n[... {dropped} bytes dropped]\n".encode() if dropped else b""
        rest = data[1000 + dropped :]
        assert (tmp_path / "a").read_bytes() == data[:1000] + line + rest


def test_an_output_that_cannot_be_written_still_has_a_tail(tmp_path: Path) -> None:
    """A missing directory costs the file only; so does a link that somebody laid there."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("missing/a", "link"):
        capture = Capture(str(tmp_path / name))
        capture.add(b"text")
        assert capture.close().tail == b"text"
    assert not (tmp_path / "elsewhere").exists()


def test_silence_makes_no_file(tmp_path: Path) -> None:
    """A thousand quiet runs cost no inode."""
    assert Capture(str(tmp_path / "a")).close() == (b"", 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_names_are_safe_in_any_directory() -> None:
    """No separator, no dots that lead elsewhere, bounded."""
    assert output_name("3f-1700000000000", 7) == "3f-1700000000000.7.log"
    assert output_name("../../etc/passwd\0ä", 7) == ".._.._etc_passwd__.7.log"
    assert len(output_name("x" * 1000, 2**64)) < 255


def lay(directory: Path, name: str, at: float, size: int = 100) -> None:
    (directory / name).write_bytes(b"x" * size)
    os.utime(directory / name, (at, at))


def test_a_shelf_deletes_the_oldest_first(tmp_path: Path) -> None:
    """Until all together fit, by what the disk gives: 4 KiB each."""
    for age, name in enumerate("abcd"):
        lay(tmp_path, name, 1000 - age)
    shelf = Shelf(str(tmp_path), 3 * 4096)
    shelf.prune(1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    lay(tmp_path, "e", 1001)
    shelf.take("e")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "e"]
    assert shelf.bytes == 3 * 4096
    shelf.take("there is none")
    assert shelf.bytes == 3 * 4096
    Shelf(str(tmp_path / "missing"), 1).prune(1)


def test_a_shelf_deletes_what_is_too_old(tmp_path: Path) -> None:
    """Even where there is room, and nothing new comes."""
    for at, name in ((100, "old"), (200, "young")):
        lay(tmp_path, name, at)
    (tmp_path / "directory").mkdir()
    shelf = Shelf(str(tmp_path), age_seconds=60)
    shelf.prune(170)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "young"]
    shelf.prune(1_000)
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]
    assert shelf.bytes == 0


def test_one_output_takes_a_quarter_of_the_room_at_most(tmp_path: Path) -> None:
    """So that a small bound is not one output's alone."""
    assert Shelf(str(tmp_path), 1 << 20).file_bytes == 1 << 18
    assert Shelf(str(tmp_path)).file_bytes == 10 << 20
