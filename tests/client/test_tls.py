"""What a client says of a node that it cannot speak TLS with, or whose name nobody knows: what, and what to do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from raftcron.client import AsyncClient, Client
from raftcron.client.sync import why
from raftcron.errors import UnavailableError
from tests.raft.certificates import Authority


@asynccontextmanager
async def https(authority: Authority, *names: str, days: int = 365) -> AsyncIterator[TestServer]:
    """A node with a certificate for these names."""
    issued = authority.issue(*names, days=days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    server = TestServer(app)
    await server.start_server(ssl=context)
    try:
        yield server
    finally:
        await server.close()


async def refusal(kind: Any, address: str, act: Callable[[Any], Any], **options: Any) -> str:
    """What the client says that has asked there."""
    with pytest.raises(UnavailableError) as caught:
        if kind is Client:
            with Client([address], patience_seconds=0, discover=False, **options) as client:
                await asyncio.to_thread(act, client)
        else:
            async with AsyncClient([address], patience_seconds=0, discover=False, **options) as client:
                made = act(client)
                await (anext(made) if hasattr(made, "__anext__") else made)
    return str(caught.value)


def whoami(client: Any) -> Any:
    return client.whoami()


def backup(client: Any) -> Any:
    """The first piece of a stream, which is asked for in another way."""
    pieces = client.backup()
    return next(pieces) if isinstance(client, Client) else pieces


BOTH = pytest.mark.parametrize("kind", [Client, AsyncClient])
ACTS = pytest.mark.parametrize("act", [whoami, backup])


@BOTH
@ACTS
async def test_a_certificate_of_somebody_else_is_not_trusted(kind: Any, act: Any, tmp_path: Path) -> None:
    """It says what is wrong with it, and how another CA is named."""
    authority = Authority(tmp_path / "ours")
    async with https(authority, "localhost") as server:
        said = await refusal(kind, f"https://localhost:{server.port}", act)
        assert f"localhost:{server.port}: its certificate is not trusted (unable to get local issuer" in said
        assert "--cacert FILE" in said
        other = str(Authority(tmp_path / "other").ca)
        assert "its certificate is not trusted" in await refusal(
            kind, f"https://localhost:{server.port}", act, ca=other
        )


@BOTH
async def test_a_certificate_that_has_expired_is_said_to_have(kind: Any, tmp_path: Path) -> None:
    """Another CA would be no help, and is not spoken of."""
    authority = Authority(tmp_path)
    async with https(authority, "localhost", days=-1) as server:
        said = await refusal(kind, f"https://localhost:{server.port}", whoami, ca=str(authority.ca))
    assert "its certificate is not trusted (certificate has expired)" in said
    assert "--cacert" not in said


@BOTH
@ACTS
async def test_a_certificate_with_other_names_is_said_to_have_none_of_this(kind: Any, act: Any, tmp_path: Path) -> None:
    """A node that is called by its number, though its certificate has its name."""
    authority = Authority(tmp_path)
    async with https(authority, "node.example") as server:
        for host in ("127.0.0.1", "localhost"):
            said = await refusal(kind, f"https://{host}:{server.port}", act, ca=str(authority.ca))
            assert f"its certificate does not name {host}" in said


@BOTH
@ACTS
async def test_a_node_without_tls_is_asked_over_http(kind: Any, act: Any) -> None:
    """It is said that it speaks none, and which address would do."""
    async with TestServer(web.Application()) as server:
        address = f"https://127.0.0.1:{server.port}"
        said = await refusal(kind, address, act)
    assert f"{address}: it does not speak TLS (use http://)" in said


@BOTH
@ACTS
async def test_a_name_that_no_host_has_is_said_to_be_unknown(kind: Any, act: Any) -> None:
    """The top-level name .invalid is nobody's for ever."""
    said = await refusal(kind, "http://no-such-host.invalid:7101", act)
    assert "no-such-host.invalid:7101: host name not known" in said or "name resolution" in said


def test_other_faults_of_tls_and_names_have_words_of_their_own() -> None:
    """Never those of a number that means something else to the system."""
    assert why(ssl.SSLError(1, "something odd")).startswith("TLS fails: ")
    assert why(ConnectionRefusedError(111, "no")) == "Connection refused"
