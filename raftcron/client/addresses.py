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

    def __init__(self, named: Sequence[str]) -> None:
        """InvalidError: one is not `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`, or there is none."""
        self._order = list(dict.fromkeys(base(address) for address in named))
        if not self._order:
            raise InvalidError("no address of a node is given: name at least one as http://HOST:PORT")
        self._scheme = urlsplit(self._order[0]).scheme
        self._by_name: dict[str, str] = {}

    def round(self, leader: str | None = None) -> list[str]:
        """Each once: the leader's, where it is known, then in the order in which they have served."""
        at = None if leader is None else self._by_name.get(leader)
        return self._order.copy() if at is None else [at, *(one for one in self._order if one != at)]

    def knows(self, leader: str) -> bool:
        """Whether the cluster has told where this node is."""
        return leader in self._by_name

    def served(self, address: str) -> None:
        """This one answered: it is asked first from now on."""
        self._order.remove(address)
        self._order.insert(0, address)

    def learn(self, members: Iterable[Mapping[str, Any]]) -> None:
        """What `/v1/cluster` says of its members; what it says that cannot be an address is passed over."""
        for member in members:
            try:
                address = base(f"{self._scheme}://{member['http']}" if "://" not in member["http"] else member["http"])
            except (InvalidError, KeyError, TypeError):
                continue
            self._by_name[str(member["name"])] = address
            if address not in self._order and len(self._order) < LEARNED_MAX:
                self._order.append(address)


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
