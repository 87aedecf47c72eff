"""What a request says beside its body: parameters (unknown ones are refused), preconditions, the idempotency key."""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import blake2b
from typing import Final, NamedTuple, cast

from aiohttp import web

from raftcron.api.auth import principal
from raftcron.core.access import EVERYBODY
from raftcron.core.fields import near
from raftcron.core.instant import parse_rfc3339, shown
from raftcron.core.model import Key
from raftcron.errors import Fault, InvalidError, MalformedError
from raftcron.runtime.listing import PAGE_DEFAULT, PAGE_MAX
from raftcron.runtime.origin import unfit
from raftcron.runtime.reads import Consistency
from raftcron.runtime.writes import Precondition

READ = ("consistency", "min_index")
PAGE = ("limit", "cursor")
INDEX_MAX = 1 << 62

NOT_VALID = "the parameters of the request are not valid"

KEY_MAX = 255  # characters of an idempotency key
_KEY = re.compile(rf"[!-~]{{1,{KEY_MAX}}}", re.ASCII)
_ETAGS = re.compile(r'\s*(?:(?:W/)?"[^"]*"\s*(?:,\s*|$))+')
_ETAG = re.compile(r'(W/)?"([^"]*)"')
_REVISION = re.compile(r"[0-9]{1,19}", re.ASCII)


class Keyed(NamedTuple):
    """The idempotency key of a write that keeps it, and the whole body that it came with."""

    key: Key
    body: bytes


_KEYED: Final = web.RequestKey("keyed", Keyed)


class Query:
    """The parameters of one request; each getter may be asked once.

    What is wrong with one is a fault `?name`, and a getter then gives what absence means.  A read refuses all of them
    with `refuse_any`; a write goes on to judge its body (`origin.unfit`), and is refused before it is written.
    """

    def __init__(self, request: web.Request, known: Collection[str], repeatable: Collection[str] = ()) -> None:
        self._values = request.query
        self.faults = [
            Fault(f"?{name[:100]}", "is not a parameter here" + near(name[:100], known))
            for name in dict.fromkeys(self._values)
            if name not in known
        ]
        self.faults += [
            Fault(f"?{name}", "is there more than once")
            for name in known
            if name not in repeatable and len(self._values.getall(name, ())) > 1
        ]
        unfit.set(self.faults)

    def fault(self, name: str, message: str) -> None:
        self.faults.append(Fault(f"?{name}", message))

    def refuse_any(self) -> None:
        """Raises InvalidError for all that is wrong with the parameters that were asked for until now."""
        if self.faults:
            raise InvalidError(NOT_VALID, tuple(self.faults))

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def texts(self, name: str) -> list[str]:
        return self._values.getall(name, [])

    def flag(self, name: str) -> bool:
        value = self._values.get(name)
        if value in (None, "0", "false"):
            return False
        if value in ("1", "true"):
            return True
        self.fault(name, f"is {shown(value)}: use 1 or 0")
        return False

    def whole(self, name: str, default: int | None, least: int, most: int) -> int | None:
        value = self._values.get(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or len(value) > 19 or not least <= int(value) <= most:
            self.fault(name, f"is {shown(value)}: use a whole number from {least} to {most}")
            return default
        return int(value)

    def choice(self, name: str, allowed: Collection[str]) -> str | None:
        value = self._values.get(name)
        if value is not None and value not in allowed:
            self.fault(name, f"is {shown(value)}, allowed are {', '.join(allowed)}")
            return None
        return value

    def instant(self, name: str) -> int | None:
        """As RFC 3339 has it, in ms."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return parse_rfc3339(value)
        except ValueError as error:
            self.fault(name, str(error))
            return None

    @property
    def limit(self) -> int:
        return cast(int, self.whole("limit", PAGE_DEFAULT, 1, PAGE_MAX))

    @property
    def consistency(self) -> Consistency:
        return cast(Consistency, self.choice("consistency", ("linearizable", "stale")) or "linearizable")

    @property
    def min_index(self) -> int | None:
        return self.whole("min_index", None, 0, INDEX_MAX)


def precondition(request: web.Request) -> Precondition:
    """If-Match and If-None-Match.  MalformedError: not entity tags."""
    match, any_match = _tags(request, "If-Match", weak=False)
    none_match, any_none = _tags(request, "If-None-Match", weak=True)
    return Precondition(match, any_match, none_match or frozenset(), any_none)


def _tags(request: web.Request, header: str, *, weak: bool) -> tuple[frozenset[int] | None, bool]:
    """The revisions in a header of entity tags (None: no such header), and whether it is `*`.

    A tag that cannot be a revision matches none; a weak one matches only where the comparison is `weak`.
    """
    values = request.headers.getall(header, [])
    if not values:
        return None, False
    text = ",".join(values)
    if text.strip() == "*":
        return None, True
    if _ETAGS.fullmatch(text) is None:
        raise MalformedError(
            f'{header} is {shown(text)}: write the ETag of the answer, like "42" with its quotes, or *'
        )
    return frozenset(
        int(tag) for is_weak, tag in _ETAG.findall(text) if _REVISION.fullmatch(tag) and (weak or not is_weak)
    ), False


def idempotency_key(request: web.Request, body: bytes) -> Key | None:
    """The key of a write that keeps it and comes as a whole; whatever is wrong with the body, see `keyed`."""
    key = given_key(request, body)
    if key is not None:
        request[_KEYED] = Keyed(key, body)
    return key


def keyed(request: web.Request) -> Keyed | None:
    """What `idempotency_key` has found."""
    found: Keyed | None = request.get(_KEYED)
    return found


def given_key(request: web.Request, body: bytes = b"") -> Key | None:
    """The request's key with its scope: who, method and path.  A repeat has to bring the same parameters and body."""
    values = request.headers.getall("Idempotency-Key", [])
    if not values:
        return None
    if len(values) > 1 or _KEY.fullmatch(values[0]) is None:
        raise MalformedError(
            f"Idempotency-Key is {shown(', '.join(values))}: use it once, with 1 to {KEY_MAX} visible ASCII characters"
        )
    who = principal(request)
    scope = "\n".join(("" if who == EVERYBODY else who.name, request.method, request.path, values[0]))
    query = "&".join(sorted(f"{name}={value}" for name, value in request.query.items()))
    digest = blake2b(query.encode("utf-8", "surrogatepass") + b"\0" + body, digest_size=16).digest()
    return Key(scope=scope, body_hash=digest, status=0, index=0, at=0)
