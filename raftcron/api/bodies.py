"""Request bodies: read with a limit and a time-out, of the route's type, decoded strictly.  What they mean is not here.

JSON is taken as RFC 8259 has it and I-JSON (RFC 7493) narrows it: UTF-8, no key twice in one object, no NaN, no half
of a surrogate pair; and bounded: at most DEPTH_MAX levels and VALUES_MAX values, so that no body holds the loop.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any, NoReturn

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from raftcron.errors import Fault, InvalidError, MalformedError, MediaTypeError, TooLargeError

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
NDJSON = "application/x-ndjson"
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")

JOB_BYTES_MAX = 1 << 20  # one command holds a job
BULK_BYTES_MAX = 32 << 20  # of many jobs in one JSON body; as lines there is no bound
SMALL_BYTES_MAX = 1 << 18  # every other body
READ_SECONDS = 30.0  # for a whole body
DEPTH_MAX = 64
VALUES_MAX = 50_000
USUAL_BYTES = 64 << 10  # which hold fewer than VALUES_MAX values
USUAL_DEPTH = 16
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_LEAST_WHOLE, _MOST_WHOLE = -(1 << 63), (1 << 64) - 1  # what the log can hold


async def read(request: web.Request, limit: int, *types: str) -> bytes:
    """The body, at most `limit` bytes of one of these types; of no body only that no form has sent it.

    Raises TooLargeError, MediaTypeError, MalformedError (it did not come within READ_SECONDS).
    """
    check_head(request, *types)
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise MalformedError(f"the body did not come within {READ_SECONDS:g} s") from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
        raise MalformedError("the body ended early, or its chunks cannot be read") from None
    if not body and request.content_type in FORM_TYPES:
        raise MediaTypeError(f"{request.content_type} is what a form sends: leave Content-Type out where no body is")
    return bytes(body)


def check_head(request: web.Request, *types: str) -> None:
    """What can be told before the body has come.  Raises MediaTypeError."""
    _check_coding(request)
    if request.can_read_body:
        _check_type(request, types)


def decode(body: bytes, *, may_be_empty: bool = False) -> Any:
    """The JSON value in a body; None for no body at all, where that is allowed.

    Raises MalformedError where it is no JSON, InvalidError for numbers that cannot be kept.
    """
    if not body:
        if may_be_empty:
            return None
        raise MalformedError("the body is empty: this route takes JSON")
    try:
        return _usual(body)
    except _UnusualError:
        return _walked(body)


def _walked(body: bytes) -> Any:
    """As `decode`, looked at value by value."""
    _check_count(body)
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise MalformedError(f"the body is not UTF-8: byte {error.start} has no place there") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise MalformedError(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except _KeyTwiceError as error:
        raise key_twice(error.args[0]) from None
    except ValueError as error:  # an integer of more digits than Python reads, or a constant
        raise MalformedError(f"the body is not JSON: {str(error).split(';')[0]}") from None
    _check_values(value)
    return value


def _check_count(body: bytes) -> None:
    """Tell of too many values before they are made: each but the outermost follows a comma or an opening bracket."""
    if len(body) > VALUES_MAX:
        rest = _STRINGS.sub(b"", body)
        commas, brackets = rest.count(b","), rest.count(b"[") + rest.count(b"{")
        if brackets > DEPTH_MAX * (commas + 1):
            raise _too_deep()
        if max(commas, brackets) > VALUES_MAX:
            raise _too_many()


class _UnusualError(Exception):
    """Only the walk can tell what is in the body, and what is wrong with it."""


def _usual(body: bytes) -> Any:
    """The value in a small body with nothing special in it, as nearly all are: twice as fast as the walk.

    Without a backslash each string has two quotation marks, so that a key that is there twice shows as strings too few.
    """
    if len(body) > USUAL_BYTES or b"\\" in body:
        raise _UnusualError
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _UnusualError from None
    if 2 * _strings(value, USUAL_DEPTH) != body.count(b'"'):
        raise _UnusualError
    return value


def _strings(value: Any, depth: int) -> int:
    """How many strings stand in it, keys too."""
    kind = type(value)
    if kind is str:
        return 1
    if not depth or kind is float or (kind is int and not _LEAST_WHOLE <= value <= _MOST_WHOLE):
        raise _UnusualError
    if kind is dict:
        return len(value) + sum([_strings(inner, depth - 1) for inner in value.values()])
    if kind is list:
        return sum([_strings(inner, depth - 1) for inner in value])
    return 0


class _KeyTwiceError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _KeyTwiceError(key)
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def key_twice(key: str) -> MalformedError:
    """What such a body is refused with."""
    return MalformedError(f"the body is not usable: the key {key!r:.80} is twice in one object")


def _check_values(value: Any) -> None:
    """Walk without recursion: depth, number of values, and each one's range."""
    faults: list[Fault] = []
    count = 0
    level: list[tuple[str, Any]] = [("", value)]
    for _ in range(DEPTH_MAX):
        below: list[tuple[str, Any]] = []
        for pointer, item in level:
            if isinstance(item, dict | list):
                count += len(item)
                if count > VALUES_MAX:
                    raise _too_many()
            if isinstance(item, dict):
                for key, inner in item.items():
                    _check_text(key)
                    below.append((f"{pointer}/{_escape(key)}", inner))
            elif isinstance(item, list):
                below.extend((f"{pointer}/{place}", inner) for place, inner in enumerate(item))
            elif isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                faults.append(Fault(pointer, "is a number beyond what can be kept (1.8e308)"))
            elif isinstance(item, int) and not _LEAST_WHOLE <= item <= _MOST_WHOLE:
                faults.append(Fault(pointer, "is a whole number beyond what can be kept (-2^63 to 2^64 - 1)"))
        if not below:
            break
        level = below
    else:
        raise _too_deep()
    if faults:
        raise InvalidError("the body has numbers that cannot be kept; nothing was done", tuple(faults[:100]))


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise MalformedError("the body holds half of a surrogate pair, which is not a character") from None


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _check_coding(request: web.Request) -> None:
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise MediaTypeError("compressed bodies are not taken: leave out Content-Encoding")


def _check_type(request: web.Request, types: tuple[str, ...]) -> None:
    if "Content-Type" not in request.headers or request.content_type not in types:
        given = request.headers.get("Content-Type", "")[:100]
        what = f"a body of type {given!r} is not taken" if given else "the body has no Content-Type"
        others = f" (or {' or '.join(types[1:])})" if types[1:] else ""
        raise MediaTypeError(
            f"{what}: send the header Content-Type: {types[0]}{others}; with curl, add -H 'Content-Type: {types[0]}'"
        )
    if (request.charset or "utf-8").lower().replace("_", "-") not in ("utf-8", "utf8", "us-ascii"):
        raise MediaTypeError("JSON is UTF-8: leave out the charset")


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {limit} bytes, which is what this route takes")


def _too_many() -> TooLargeError:
    return TooLargeError(f"the body holds more than {VALUES_MAX} values")


def _too_deep() -> MalformedError:
    return MalformedError(f"the body is nested more than {DEPTH_MAX} levels deep")
