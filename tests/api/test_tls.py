"""TLS of the HTTP interface: served, forwarded, asked of clients, and read anew when the files change."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from raftcron.api.app import create_app
from raftcron.api.server import create_runner
from raftcron.api.tls import HttpTls, TlsFiles
from raftcron.client import AsyncClient, Client
from raftcron.errors import ConfigurationError, RaftcronError, UnavailableError
from tests.api.bench import GOOD, Bench, bench
from tests.raft.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def files(authority: Authority, *, client_ca: bool = False, file: str | None = None) -> TlsFiles:
    """A certificate for localhost."""
    made = authority.issue("localhost", file=file)
    return TlsFiles(made.certificate, made.key, authority.ca if client_ca else None, authority.ca)


async def serve_tls(made: Bench, name: str, tls: HttpTls) -> str:
    """The node begins anew, over TLS; where it is."""
    node = made.nodes[name]
    await node.close()
    node.context.tls = tls
    node.runner = create_runner(create_app(node.context))
    await node.runner.setup()
    site = web.TCPSite(node.runner, "127.0.0.1", 0, ssl_context=tls.listening)
    await site.start()
    assert site._server is not None
    node.url = f"https://localhost:{site._server.sockets[0].getsockname()[1]}"
    node.machine.incarnation += 1
    await made.n1.propose(announcement(node))
    return node.url


def announcement(node: Any) -> Any:
    from raftcron.core.commands import Announce

    address = node.url.removeprefix("https://")
    return Announce(node.name, node.machine.incarnation, address, f"{node.name}:7201", "0.1.0", 1000, 100)


@asynccontextmanager
async def secured(tls: HttpTls) -> AsyncIterator[Bench]:
    async with bench(2, hold_seconds=2.0) as made:
        for name in ("n1", "n2"):
            await serve_tls(made, name, tls)
        yield made


async def test_a_follower_forwards_over_tls(authority: Authority) -> None:
    """Both clients speak it too, and trust the CA that they are told."""
    async with secured(HttpTls(files(authority))) as made:
        async with AsyncClient([made.n2.url], ca=str(authority.ca), discover=False) as client:
            await client.put_job("a", GOOD)
            assert (await client.get_job("a"))["name"] == "a"
        with Client([made.n2.url], ca=str(authority.ca), discover=False) as other:
            assert (await asyncio.to_thread(other.get_job, "a"))["name"] == "a"
        assert made.n1.machine.state.jobs["a"]


async def test_a_certificate_of_nobody_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    """By a client, and by a node that forwards: 503, nothing was written."""
    stranger = Authority(tmp_path / "other")
    async with secured(HttpTls(files(authority))) as made:
        async with AsyncClient([made.n2.url], patience_seconds=0, discover=False) as client:
            with pytest.raises(UnavailableError):
                await client.put_job("a", GOOD)
        await serve_tls(made, "n1", HttpTls(files(stranger)))
        async with AsyncClient([made.n2.url], ca=str(authority.ca), patience_seconds=0, discover=False) as client:
            with pytest.raises(UnavailableError):
                await client.put_job("a", GOOD)
        assert "a" not in made.n1.machine.state.jobs


async def test_clients_may_have_to_show_a_certificate(authority: Authority, tmp_path: Path) -> None:
    """With --tls-client-ca; nodes show their own to each other."""
    shown = authority.issue("somebody")
    both = tmp_path / "both.pem"
    both.write_bytes(shown.certificate.read_bytes() + shown.key.read_bytes())
    async with secured(HttpTls(files(authority, client_ca=True))) as made:
        async with AsyncClient([made.n2.url], ca=str(authority.ca), patience_seconds=0, discover=False) as client:
            with pytest.raises(RaftcronError):  # with TLS 1.3 the server says so after the client's handshake
                await client.get_job("a")
        async with AsyncClient([made.n2.url], ca=str(authority.ca), certificate=str(both), discover=False) as client:
            await client.put_job("a", GOOD)


def served(url: str, ca: Path) -> int:
    """The serial number of the certificate that a new connection is shown."""
    import socket
    from urllib.parse import urlsplit

    context = ssl.create_default_context(cafile=str(ca))
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname, parts.port), 5) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
    ):
        certificate: Any = secure.getpeercert()
        return int(certificate["serialNumber"], 16)


async def test_a_renewed_certificate_is_shown_without_a_restart(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """To the next connection; what cannot be used is logged once, and the former one stays in use."""
    first = files(authority, file="renewed")
    async with secured(HttpTls(first)) as made:
        before = await asyncio.to_thread(served, made.n1.url, authority.ca)
        again = authority.issue("localhost", file="renewed")
        os.utime(again.certificate, ns=(1, 1))
        after = await asyncio.to_thread(served, made.n1.url, authority.ca)
        assert after != before
        again.certificate.write_text("nonsense")
        for _ in range(2):
            assert await asyncio.to_thread(served, made.n1.url, authority.ca) == after
        assert sum("certificate_kept" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca", "ca"])
def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path, broken: str) -> None:
    """Which flag, which file, why; also where it is not there at all."""
    good = files(authority)
    bad = tmp_path / "bad.pem"
    flag = {"certificate": "--tls-cert", "key": "--tls-key", "client_ca": "--tls-client-ca", "ca": "--tls-ca"}[broken]
    for content in (None, "nonsense"):
        if content is not None:
            bad.write_text(content)
        with pytest.raises(ConfigurationError) as raised:
            HttpTls(TlsFiles(**{"certificate": good.certificate, "key": good.key, broken: bad}))
        assert flag in raised.value.detail
        assert str(bad) in raised.value.detail
