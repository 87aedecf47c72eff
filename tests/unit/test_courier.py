"""Mails are handed to a relay, and what it says is told."""

from __future__ import annotations

import asyncio

import pytest

from raftcron.clock import SystemClock
from raftcron.executors.addresses import AddressRules
from raftcron.executors.courier import Courier


class Relay:
    """Speaks as much SMTP as one mail needs; `refuses` turns recipients away."""

    def __init__(self, refuses: bool = False) -> None:
        self.lines: list[str] = []
        self.refuses = refuses

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n")
        is_data = False
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            self.lines.append(line)
            word = line[:4].upper()
            if word == "DATA":
                writer.write(b"354 go on\r\n")
                is_data = True
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
        assert is_data or self.refuses
        writer.close()


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_mail_is_handed_to_the_relay(refuses: bool) -> None:
    """With subject, text and the event's id; a refusal is told without the address."""
    relay = Relay(refuses)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        place = server.sockets[0].getsockname()[:2]
        courier = Courier(clock=SystemClock(), rules=AddressRules(), smtp=place, sender="cron@example.org")
        problem = await courier.mail("ops@example.org", "backup failed", "why\n", "7.0")
    if refuses:
        assert problem is not None
        assert "relay" in problem
        assert "ops@" not in problem
        return
    assert problem is None
    assert "RCPT TO:<ops@example.org>" in [line.replace("rcpt TO", "RCPT TO") for line in relay.lines]
    assert {"Subject: backup failed", "Raftcron-Event-Id: 7.0", "From: cron@example.org", "why"} <= set(relay.lines)


async def test_without_a_relay_no_mail_is_sent() -> None:
    """And it is said what is missing."""
    courier = Courier(clock=SystemClock(), rules=AddressRules())
    assert "--smtp" in str(await courier.mail("ops@example.org", "s", "t", "1.0"))
