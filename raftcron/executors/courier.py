"""Carries one alert to one target: a POST or a mail.  What is sent, and when again, is in runtime/alerts.py."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Final

import aiohttp
from yarl import URL

import raftcron
from raftcron.clock import Clock
from raftcron.executors.addresses import AddressRules
from raftcron.executors.mail import Relay
from raftcron.executors.signature import signed

SECONDS: Final = 10.0  # for one try


class Courier:
    """Sends; each method returns None, or why it was not taken.  Mails need a `relay`."""

    def __init__(
        self,
        *,
        clock: Clock,
        rules: AddressRules,
        trust: ssl.SSLContext | None = None,
        relay: Relay | None = None,
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._trust = trust
        self._relay = relay
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], secret: str | None, id_: str) -> str | None:
        """POST `body`, JSON.  Any 2xx is success; redirects are not followed.  With a `secret` it is signed."""
        try:
            own = {} if secret is None else signed(secret, id_, int(self._clock.wall()), body)
            fields = {"Content-Type": "application/json", "User-Agent": f"raftcron/{raftcron.__version__}"}
            async with (
                asyncio.timeout(SECONDS),
                self._open().post(
                    URL(url), data=body, headers={**fields, **headers, **own}, allow_redirects=False
                ) as answer,
            ):
                return None if 200 <= answer.status < 300 else f"status {answer.status}"
        except TimeoutError:
            return f"no answer within {SECONDS:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return type(error).__name__ if isinstance(error, ValueError) else _kind_of(error)

    async def mail(self, to: str, subject: str, text: str, id_: str) -> str | None:
        """Hand a mail to the relay."""
        if self._relay is None:
            return "this node has no mail relay: give it --smtp HOST:PORT"
        letter = EmailMessage()
        letter["From"], letter["To"], letter["Subject"] = self._relay.sender, to, subject
        letter["Date"] = formatdate(self._clock.wall())
        letter["Message-ID"] = f"<{id_}@raftcron>"
        letter["Raftcron-Event-Id"] = id_
        letter.set_content(text)
        return await asyncio.to_thread(self._relay.take, letter)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, force_close=True, socket_factory=self._open_socket, ssl=self._trust or True
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        return self._session

    def _open_socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, where = address
        reason = self._rules.refusal(where[0])
        if reason is not None:
            raise OSError(f"{where[0]} is {reason}")
        return socket.socket(family, kind, protocol)


def _kind_of(error: BaseException) -> str:
    """In words that hold nothing of the address, since secrets may stand in it."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return f"no connection or no answer ({type(cause).__name__})"
