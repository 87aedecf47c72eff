"""What an attempt gets in place of sealed values and of `${secret:name}`, on the node that runs it, and how it is kept
out of what is recorded of the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from raftcron.core.vault import HEADERS, REFERENCE, RESOLVED, SECRET_BYTES_MAX, places
from raftcron.errors import RaftcronError
from raftcron.ports import Ending
from raftcron.runtime.machine import Machine
from raftcron.runtime.vault import Vault, place_in_job, place_of

HIDDEN: Final = "[secret]"
SHORTEST_HIDDEN = 4  # characters: hiding shorter ones would only blot words that are none

Judge = Callable[[Mapping[str, Any]], list[str]]  # pointers of what is wrong with an executor object


class SecretError(RaftcronError):
    """A run cannot have what it needs; the message names it and holds nothing of it."""

    code, title = "secret", "A secret is missing"


class Resolved(NamedTuple):
    """An executor object with everything in its place, and the values that nobody must see."""

    executor: Mapping[str, Any]
    values: tuple[str, ...]

    def hide(self, ending: Ending) -> Ending:
        """The ending as it may be recorded: of its error and its output each value is blotted out."""
        error, tail = ending.error, ending.output_tail
        for value in self.values:
            error = None if error is None else error.replace(value, HIDDEN)
            tail = tail.replace(value.encode(), HIDDEN.encode())
        return ending._replace(error=error, output_tail=tail)


class Resolver:
    """Finds secrets for the attempts of one node: in its directory first, then in the cluster's state."""

    def __init__(self, *, node: str, machine: Machine, vault: Vault, directory: Path | None, judge: Judge) -> None:
        self._node = node
        self._machine = machine
        self._vault = vault
        self._directory = directory
        self._judge = judge

    async def resolve(self, job: str, executor: Mapping[str, Any]) -> Resolved:
        """Raises SecretError."""
        made = dict(executor)
        for field in (HEADERS, "env"):
            if isinstance(made.get(field), Mapping):
                made[field] = dict(made[field])
        values: dict[str, None] = {}
        for pointer, holder, key in list(places(made)):
            if isinstance(holder[key], bytes):
                text = await self._opened(holder[key], place_in_job(job, pointer), f"{pointer} of the job's executor")
                holder[key] = text  # type: ignore[index]
                values[text] = None
        found: dict[str, str] = {}
        for field in RESOLVED:
            if field in made:
                made[field] = await self._filled(made[field], found)
        values |= dict.fromkeys(found.values())
        wrong = self._judge(made)
        if wrong:
            raise SecretError(
                f"with its secrets in place {', '.join(wrong[:5])} of the job's executor is not valid on "
                f"{self._node} (a line end, or a character that cannot stand there?)"
            )
        shown = (value for value in values if len(value) >= SHORTEST_HIDDEN)
        return Resolved(made, tuple(sorted(shown, key=len, reverse=True)))

    async def fill(self, text: str) -> str:
        """The text with secrets in the place of its references.  Raises SecretError."""
        return str(await self._filled(text, {}))

    async def _filled(self, value: Any, found: dict[str, str]) -> Any:
        if isinstance(value, Mapping):
            return {key: await self._filled(one, found) for key, one in value.items()}
        if not isinstance(value, str):
            return value
        for name in REFERENCE.findall(value):
            if name not in found:
                found[name] = await self._named(name)
        return REFERENCE.sub(lambda match: found[match[1]], value)

    async def _named(self, name: str) -> str:
        text = self._in_directory(name)
        if text is not None:
            return text
        kept = self._machine.state.secrets.get(name)
        if kept is None:
            where = f"{self._directory} nor in " if self._directory is not None else ""
            raise SecretError(
                f"the secret {name!r} is {'neither in ' if where else 'not in '}{where}/v1/secrets, asked for on "
                f"{self._node}: put it there and run the job again"
            )
        return await self._opened(kept.sealed, place_of(name), f"the secret {name!r}")

    def _in_directory(self, name: str) -> str | None:
        """A file's text without the line end behind it; the name holds no slash and begins with a letter or digit."""
        if self._directory is None:
            return None
        path = self._directory / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                content = file.read(SECRET_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SecretError(f"the secret {name!r}: {path} cannot be read: {error.strerror or error}") from None
        if len(content) > SECRET_BYTES_MAX:
            raise SecretError(f"the secret {name!r}: {path} holds more than {SECRET_BYTES_MAX} bytes")
        try:
            return content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise SecretError(f"the secret {name!r}: {path} is not UTF-8") from None

    async def _opened(self, sealed: bytes, place: str, what: str) -> str:
        try:
            await self._vault.ready()
        except RaftcronError as error:
            raise SecretError(f"{what} cannot be opened on {self._node}: {error.detail}") from None
        text = self._vault.open(sealed, place)
        if text is None:
            raise SecretError(f"{what} was not sealed for this place: write it again")
        return text
