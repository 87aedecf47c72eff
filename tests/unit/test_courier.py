"""Mails are handed to a relay, and what it says is told."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import pytest

from raftcron.clock import SystemClock
from raftcron.executors.addresses import AddressRules
from raftcron.executors.courier import Courier
from raftcron.executors.mail import Relay as Way
from tests.raft.certificates import Authority

SENDER = "cron@example.org"
PASSWORD = "s3cret words"


class Relay:
    """Speaks as much SMTP as one mail needs; `refuses` turns recipients away, with `keys` it offers STARTTLS."""

    def __init__(self, refuses: bool = False, keys: ssl.SSLContext | None = None) -> None:
        self.lines: list[str] = []
        self.refuses = refuses
        self.keys = keys

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n")
        try:
            while line := (await reader.readline()).decode().rstrip("\r\n"):
                is_secret = writer.get_extra_info("ssl_object") is not None
                self.lines.append(("tls " if is_secret else "") + line)
                word = line.upper().split(" ")[0]
                if word == "EHLO":
                    offers = ["relay", *(["STARTTLS"] if self.keys and not is_secret else []), "AUTH PLAIN"]
                    writer.write("".join(f"250-{one}\r\n" for one in offers).encode() + b"250 SIZE\r\n")
                elif word == "STARTTLS":
                    writer.write(b"220 go on\r\n")
                    assert self.keys is not None
                    await writer.start_tls(self.keys)
                elif word == "AUTH":
                    said = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                    writer.write(b"235 welcome\r\n" if said == ["", "cron", PASSWORD] else b"535 who are you\r\n")
                elif word == "DATA":
                    writer.write(b"354 go on\r\n")
                    while (line := (await reader.readline()).decode().rstrip("\r\n")) != ".":
                        self.lines.append(line)
                    writer.write(b"250 taken\r\n")
                elif word == "RCPT" and self.refuses:
                    writer.write(b"550 nobody here\r\n")
                elif word == "QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    writer.write(b"250 ok\r\n")
        except (OSError, ssl.SSLError):
            pass  # who is not trusted is left alone
        finally:
            writer.close()

    def taken(self) -> bool:
        return "why" in self.lines


async def sent(relay: Relay, *, at_once: bool = False, **way: object) -> str | None:
    """What a node says that has handed one mail to this relay."""
    listening = asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=relay.keys if at_once else None)
    async with await listening as server:
        host, port = server.sockets[0].getsockname()[:2]
        courier = Courier(clock=SystemClock(), rules=AddressRules(), relay=Way(host, port, SENDER, **way))  # type: ignore[arg-type]
        return await courier.mail("ops@example.org", "backup failed", "why\n", "7.0")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a relay shows, and what trusts it."""
    folder: Path = tmp_path_factory.mktemp("relay")
    authority = Authority(folder)
    own = authority.issue("127.0.0.1", file="relay")
    shows = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shows.load_cert_chain(own.certificate, own.key)
    trust = ssl.create_default_context(cafile=str(authority.ca))
    trust.check_hostname = False  # the authority of these tests names hosts only, and this one is an address
    return shows, trust


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_mail_is_handed_to_the_relay(refuses: bool) -> None:
    """With subject, text and the event's id; a refusal is told without the address."""
    relay = Relay(refuses)
    problem = await sent(relay)
    if refuses:
        assert problem is not None
        assert "relay" in problem
        assert "ops@" not in problem
        assert not relay.taken()
        return
    assert problem is None
    assert "RCPT TO:<ops@example.org>" in [line.replace("rcpt TO", "RCPT TO") for line in relay.lines]
    assert {"Subject: backup failed", "Raftcron-Event-Id: 7.0", f"From: {SENDER}", "why"} <= set(relay.lines)


@pytest.mark.parametrize(
    ("tls", "at_once"), [("auto", False), ("starttls", False), ("tls", True)], ids=["offered", "starttls", "tls"]
)
async def test_nothing_is_sent_in_the_clear_where_tls_is_to_be_had(
    keys: tuple[ssl.SSLContext, ssl.SSLContext], tls: str, at_once: bool
) -> None:
    """Neither the password nor the mail."""
    shows, trust = keys
    relay = Relay(keys=shows)
    assert await sent(relay, at_once=at_once, tls=tls, trust=trust, user="cron", password=PASSWORD) is None
    assert relay.taken()
    said = [line.lower() for line in relay.lines[: relay.lines.index("Subject: backup failed") - 1]]
    assert any(line.startswith("tls auth") for line in said)
    in_the_clear = {line.split(" ")[0] for line in said if not line.startswith("tls ") and ": " not in line}
    assert in_the_clear <= {"ehlo", "starttls"}


@pytest.mark.parametrize(("tls", "user"), [("auto", "cron"), ("starttls", "")])
async def test_a_relay_without_tls_gets_no_password_and_where_tls_is_asked_for_no_mail(tls: str, user: str) -> None:
    """And it is said why."""
    relay = Relay()
    problem = await sent(relay, tls=tls, user=user, password=PASSWORD if user else "")
    assert "does not offer" in str(problem)
    assert not relay.taken()
    assert not any("AUTH" in line for line in relay.lines)


async def test_a_relay_that_nobody_vouches_for_gets_nothing(keys: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """As with https jobs; the answer names the settings."""
    relay = Relay(keys=keys[0])
    assert "--receiver-ca" in str(await sent(relay))
    assert not relay.taken()


async def test_a_wrong_password_is_told_without_it(keys: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Nor does the relay's own record show it where somebody prints it."""
    shows, trust = keys
    problem = str(await sent(Relay(keys=shows), trust=trust, user="cron", password="wrong"))
    assert "535" in problem
    assert "--smtp-user" in problem
    assert "wrong" not in problem
    assert "wrong" not in repr(Way("h", 1, user="cron", password="wrong"))


async def test_without_tls_a_user_may_be_named_if_that_is_asked_for() -> None:
    """For relays on the node's own machine: the settings allow it nowhere else."""
    relay = Relay()
    assert await sent(relay, tls="off", user="cron", password=PASSWORD) is None
    assert relay.taken()


async def test_without_a_relay_no_mail_is_sent() -> None:
    """And it is said what is missing."""
    courier = Courier(clock=SystemClock(), rules=AddressRules())
    assert "--smtp" in str(await courier.mail("ops@example.org", "s", "t", "1.0"))
