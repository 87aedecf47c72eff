"""GET /openapi.json: the interface as an OpenAPI 3.1 document, made of what answers and what checks.

`sketch` asks the checks of fields what they take, `taken` and `answered` are the schemas of bodies and answers,
`operations` says of each route what it is for, `document` puts them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec
from aiohttp import web

from raftcron.api import respond
from raftcron.api.context import NODE
from raftcron.api.openapi.document import document

ROUTES: Final = web.AppKey("routes", tuple)  # of (method, path as the router has it)


async def get(request: web.Request) -> web.Response:
    app = request.app
    body = _encoded(app[ROUTES], tuple(app[NODE].registry.types))
    return respond.encoded(body)


@lru_cache(maxsize=4)
def _encoded(routes: Sequence[tuple[str, str]], types: Sequence[str]) -> bytes:
    return msgspec.json.encode(document(routes, types)) + b"\n"
