"""GET / and /ui/...: the web page, static files that come from `raftcron/ui/`.  What it shows, it asks the API for.

The files hold nothing of the cluster, so they need no token; Host and Origin are checked as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Final, NamedTuple

from aiohttp import web

from raftcron.errors import NotFoundError

INDEX: Final = "index.html"
TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",  # so that a slip of ours cannot make text into markup either
        "trusted-types 'none'",
    )
)
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-cache",  # kept, and asked about each time: a node that is upgraded shows its new page
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class _File(NamedTuple):
    body: bytes
    content_type: str
    etag: str


async def index(request: web.Request) -> web.Response:
    return _answer(request, _files()[INDEX])


async def file(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    found = _files().get(name)
    if found is None:
        raise NotFoundError(f"the web page has no file {name[:200]!r}; it begins at /")
    return _answer(request, found)


def _answer(request: web.Request, found: _File) -> web.Response:
    headers = {**HEADERS, "ETag": f'"{found.etag}"', "Content-Type": found.content_type}
    known = request.if_none_match or ()
    if any(tag.value in (found.etag, "*") for tag in known):
        del headers["Content-Type"]
        return web.Response(status=web.HTTPNotModified.status_code, headers=headers)
    return web.Response(body=found.body, headers=headers)


@cache
def _files() -> Mapping[str, _File]:
    """All of them by name, some 100 kB; read once."""
    found = {}
    for entry in files("raftcron").joinpath("ui").iterdir():
        kind = TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            found[entry.name] = _File(body, kind, blake2b(body, digest_size=12).hexdigest())
    return found
