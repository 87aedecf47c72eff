"""The admin token that an operator makes on a node's own machine: a request in the data directory, taken by the node.

Who may write in that directory may do anything to the node already, so nothing else is asked for.  The file holds the
hash alone, and goes away when the token stands in the state.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any, Final

import msgspec

from raftcron.core.access import ADMIN, ANONYMOUS, HASH_BYTES, token_hash
from raftcron.core.commands import CreateToken, Origin
from raftcron.core.fields import name_fault
from raftcron.errors import InvalidError, RaftcronError
from raftcron.ports import Entropy, Log
from raftcron.runtime.machine import Machine
from raftcron.runtime.proposer import Proposer
from raftcron.runtime.tokens import new_token

log = logging.getLogger(__name__)

REQUEST_FILE: Final = "token-request.json"
REQUEST_BYTES_MAX = 4_096
KIND = "token"  # of the message to the leader
LOOK_SECONDS = 0.5


def ask_for_admin(data_dir: Path, name: str, entropy: Entropy) -> str:
    """Leave a request for an admin token in a node's data directory; the token's text, which is nowhere else.

    The node takes it within a second while it runs, else when it starts.  Raises InvalidError, OSError.
    """
    if (problem := name_fault(name)) is not None or name == ANONYMOUS:
        raise InvalidError(f"a token cannot be called {name!r}: {problem or 'choose another name'}")
    text = new_token(name, entropy)
    content = json.dumps({"name": name, "hash": token_hash(text).hex()}).encode()
    beside = data_dir / f"{REQUEST_FILE}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fsync(descriptor)
    beside.replace(data_dir / REQUEST_FILE)
    return text


def read_request(path: Path) -> CreateToken | None:
    """The request in this file; None: there is none.  ValueError: it is none that this node takes, and why."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise ValueError("it is not a file of this node's user, or of root")
        if status.st_mode & 0o022:
            raise ValueError("others than its owner may write it")
        content = os.read(descriptor, REQUEST_BYTES_MAX)
    finally:
        os.close(descriptor)
    said = json.loads(content)
    name, hashed = said["name"], bytes.fromhex(said["hash"])
    if name_fault(name) is not None or name == ANONYMOUS or len(hashed) != HASH_BYTES:
        raise ValueError("it holds no name and hash of a token")
    return CreateToken(name, hashed, ADMIN, "", "", replaces=True)


class Bootstrap:
    """Carries the request of an operator on this machine into the log; on the leader, those of all nodes."""

    def __init__(self, *, node: str, directory: Path, machine: Machine, log: Log, proposer: Proposer) -> None:
        self._node = node
        self._path = directory / REQUEST_FILE
        self._machine = machine
        self._log = log
        self._proposer = proposer
        self._complaint = ""
        self._taking: asyncio.Task[None] | None = None
        log.on_message(KIND, self._asked)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take the request, if there is one; it goes away when it has taken effect."""
        try:
            command = read_request(self._path)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("token_request_refused path=%s error=%s", self._path, error)
            return
        if command is None:
            return
        token = self._machine.state.tokens.get(command.name)
        if token is not None and token.hash == command.hash:
            self._path.unlink(missing_ok=True)
            log.warning("admin_token_created name=%s by=an_operator_on_this_machine", command.name)
            return
        status = self._log.status()
        if status.leading_epoch is not None:
            self._take(self._node, command)
        elif status.leader is not None and status.leader != self._node:
            self._log.send(status.leader, KIND, [command.name, command.hash])

    def _take(self, node: str, command: CreateToken) -> None:
        """One at a time; whoever asked asks again as long as the state does not show it."""
        token = self._machine.state.tokens.get(command.name)
        is_there = token is not None and token.hash == command.hash
        if not is_there and (self._taking is None or self._taking.done()):
            self._taking = asyncio.get_running_loop().create_task(self._propose(node, command))

    async def _propose(self, node: str, command: CreateToken) -> None:
        by = f"node:{node}"
        try:
            origin = Origin(by, node, "", "POST", "/v1/tokens")
            await self._proposer.propose(msgspec.structs.replace(command, created_by=by), origin)
        except RaftcronError as error:
            log.info("token_not_created code=%s next=asked_again", error.code)

    def _asked(self, peer: str, message: Any) -> None:
        match message:
            case [str(name), bytes(hashed)] if len(hashed) == HASH_BYTES:
                if self._log.leading_epoch is not None:
                    self._take(peer, CreateToken(name, hashed, ADMIN, "", "", replaces=True))
            case _:
                log.warning("token_request_unreadable peer=%s", peer)
