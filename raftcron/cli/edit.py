"""A text in somebody's editor, which is never lost: where it could not be used, it is kept in a file."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from raftcron.cli.printing import say
from raftcron.errors import InvalidError, RaftcronError


class Draft:
    """A file that is edited; `write` sets its text, `edit` shows it to whoever sits there and gives what comes back."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._shown = ""
        self.is_changed = False  # by a person

    def write(self, text: str) -> None:
        """The text as it is shown next."""
        self._file.write_text(text, encoding="utf-8")
        self._shown = text

    def edit(self) -> str:
        """What the editor leaves.  RaftcronError: it cannot be started, or ended with an error."""
        command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            code = subprocess.run([*shlex.split(command), str(self._file)], check=False).returncode
        except (OSError, ValueError) as error:
            raise RaftcronError(
                f"the editor {command!r} cannot be started: {error}; name another one: EDITOR=nano"
            ) from error
        try:
            text = self._file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.is_changed = True
            raise InvalidError(f"{self._file}: cannot be read: {error}") from error
        self.is_changed = self.is_changed or text != self._shown
        if code != 0:
            raise RaftcronError(f"the editor {command!r} ended with exit code {code}; nothing was written")
        return text


@contextlib.contextmanager
def draft(name: str, hint: str) -> Iterator[Draft]:
    """A draft called after `name`; it is deleted, unless the work on it failed and somebody had changed it.

    Then it is told where it is, and `hint` (with `{file}`) what to do with it.
    """
    descriptor, path = tempfile.mkstemp(prefix=f"raftcron-{name[:60]}-", suffix=".yaml")
    os.close(descriptor)
    file = Path(path)
    made = Draft(file)
    try:
        yield made
    except BaseException:
        if made.is_changed and file.exists():
            say(f"what you wrote is kept in {file}: {hint.format(file=file)}")
        else:
            file.unlink(missing_ok=True)
        raise
    file.unlink(missing_ok=True)
