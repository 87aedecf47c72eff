"""Who may ask at all: on a loopback address the Host of every request, everywhere its Origin, so that no page of
another site can reach the node through a browser."""

from __future__ import annotations

import ipaddress
import re

from aiohttp import web

from raftcron.errors import ForbiddenError

LOOPBACK_NAMES = ("localhost", ".localhost")

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{0,5})?", re.ASCII)


class Guard:
    """The rule of one listener; `listen` and `advertise` are `host:port`."""

    def __init__(self, listen: str, advertise: str) -> None:
        self._is_loopback = is_loopback(host_of(listen))
        self._advertised = host_of(advertise)

    def check(self, request: web.BaseRequest) -> None:
        """Raises ForbiddenError for a request that a browser may have been tricked into."""
        host = request.headers.get("Host")
        if self._is_loopback and host is not None and not self._is_own(host_of(host)):
            names = dict.fromkeys(("localhost", "127.0.0.1", self._advertised))
            raise ForbiddenError(
                f"this node listens on loopback only, and {host[:100]!r} is no name of it: "
                f"ask it as {' or '.join(name for name in names if name)}"
            )
        origin = request.headers.get("Origin")
        if origin is not None and (host is None or not _is_same(origin, host)):
            raise ForbiddenError(
                f"the request comes from a page of {origin[:100]!r}, which is not this node: "
                "only its own pages may ask it"
            )

    def _is_own(self, host: str) -> bool:
        return is_loopback(host) or host == self._advertised


def host_of(address: str) -> str:
    """The host of `host:port`, `[v6]:port` or a host alone, in lower case and without brackets; "" if there is none."""
    match = _AUTHORITY.fullmatch(address.strip())
    return "" if match is None else (match["v6"] or match["name"]).lower().rstrip(".")


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and nothing else."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOOPBACK_NAMES[0] or host.endswith(LOOPBACK_NAMES[1])


def _is_same(origin: str, host: str) -> bool:
    """Whether a page of `origin` was loaded from `host`; a TLS end in front of the node may differ in the scheme."""
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and rest.lower() == host.lower()
