"""A client whose reads are answered by whichever node is asked, from what it has: `--stale`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from raftcron.client import Answer, Client
from raftcron.client.api import Query

NO_CONSISTENCY = ("/v1/cluster",)  # what a node always answers by itself


class StaleClient(Client):
    """Its GETs say `consistency=stale`."""

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return super().request(method, path, body, _stale(path, query) if method == "GET" else query, headers)

    def stream(
        self,
        path: str,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        opened: MutableMapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        return super().stream(path, _stale(path, query), headers, opened)


def _stale(path: str, query: Query | None) -> Query | None:
    return query if path in NO_CONSISTENCY else {**(query or {}), "consistency": "stale"}
