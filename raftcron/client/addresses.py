"""Where nodes are: what the caller named, what the cluster tells, and which one to ask first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from raftcron.errors import InvalidError

DEFAULT_ADDRESSES: Final = tuple(f"http://127.0.0.1:{port}" for port in (7101, 7102, 7103))  # of a local cluster
LEARNED_MAX: Final = 16  # a cluster has five members or so


class Addresses:
    """The nodes of one cluster, the one that answered last in front."""

    def __init__(self, named: str | Sequence[str]) -> None:
        """InvalidError: one is not `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`, or there is none."""
        self._named = tuple(dict.fromkeys(base(address) for address in ([named] if isinstance(named, str) else named)))
        if not self._named:
            raise InvalidError("no address of a node is given: name at least one as http://HOST:PORT")
        self._scheme = urlsplit(self._named[0]).scheme
        self._order = list(self._named)
        self._by_name: dict[str, str] = {}
        self._silent: set[str] = set()

    def round(self, leader: str | None = None) -> list[str]:
        """Each once: the leader's, where it is known and answers, then in the order in which they have served."""
        at = None if leader is None else self._by_name.get(leader)
        if at is None or at in self._silent:
            return self._order.copy()
        return [at, *(one for one in self._order if one != at)]

    def knows(self, leader: str | None) -> bool:
        """Whether the cluster has told where this node is."""
        return leader in self._by_name

    def served(self, address: str) -> None:
        """This one answered: it is asked first from now on."""
        self._silent.discard(address)
        if address in self._order:
            self._order.remove(address)
            self._order.insert(0, address)

    def failed(self, address: str) -> None:
        """No answer came from this one: it is asked last from now on, even if it leads, until it answers again."""
        if address in self._order:
            self._silent.add(address)
            self._order.remove(address)
            self._order.append(address)

    def learn(self, members: Iterable[Mapping[str, Any]]) -> None:
        """All that `/v1/cluster` says of its members; what cannot be an address of this scheme is passed over."""
        self._by_name = {}
        for member in members:
            try:
                address = base(member["http"] if "://" in member["http"] else f"{self._scheme}://{member['http']}")
            except (InvalidError, KeyError, TypeError):
                continue
            if urlsplit(address).scheme == self._scheme and len(self._by_name) < LEARNED_MAX:
                self._by_name[str(member["name"])] = address
        known = dict.fromkeys((*self._named, *self._by_name.values()))
        self._order = list(dict.fromkeys((*(one for one in self._order if one in known), *known)))
        self._silent.intersection_update(known)


def base(address: str) -> str:
    """An address in one form.  Raises InvalidError."""
    text = address.strip().rstrip("/")
    if "://" not in text:
        text = "http://" + text
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_good = False
    if not is_good or parts.path or parts.query or parts.fragment or parts.username:
        raise InvalidError(f"{address!r} is not the address of a node: expected http://HOST:PORT")
    return text
