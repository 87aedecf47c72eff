"""Files that take the place of others, once what is in them is whole."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from raftcron.errors import InvalidError


def place_of(file: Path, instead: str = "name another one") -> Path:
    """Where a file of this name is, or will be: a link is followed.  InvalidError: something else is there."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise InvalidError(f"{file}: is no regular file, and one would take its place: {instead}")
    except FileNotFoundError:
        pass  # also a link that leads to nothing yet
    except OSError as error:
        raise InvalidError(f"{file}: cannot be written: {error.strerror}") from error
    return Path(os.path.realpath(file))


@contextlib.contextmanager
def replacing(place: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """What is written here takes the place of a file in the end; whatever fails before leaves what was there.

    `place` is what `place_of` has found.  InvalidError: it cannot be written.
    """
    beside = place.with_name(place.name + ".new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(beside, flags, mode), "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(place)
    except OSError as error:
        raise InvalidError(f"{place}: cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
