"""Nodes that get no new runs: asked for over HTTP, kept in the state, over with the node's next life."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from raftcron.core.commands import Command, Done, Drain
from raftcron.core.fields import kind_of
from raftcron.core.model import Key
from raftcron.errors import Fault, NotFoundError, RaftcronError
from raftcron.ports import Log, Standing
from raftcron.runtime.machine import Machine
from raftcron.runtime.small_bodies import fields_of, refuse_any
from raftcron.runtime.writes import Writes, taken

log = logging.getLogger(__name__)


class Drains:
    """Draining over HTTP; runs on the leader."""

    def __init__(self, *, node: str, machine: Machine, log: Log, writes: Writes) -> None:
        self._node = node
        self._machine = machine
        self._log = log
        self._writes = writes

    async def drain(self, body: Any, key: Key | None) -> Done:
        """The node gets no new runs, or may have them again; body `{node, drain}`, `drain` is true unless said.

        A leader hands over the lead too, if another voter takes runs.  Raises InvalidError, NotFoundError.
        """
        name, is_drained = _read(body)

        def look() -> Command:
            if name not in self._machine.state.nodes:
                names = ", ".join(sorted(self._machine.state.nodes))
                raise NotFoundError(f"there is no node {name[:64]!r}; there are {names}")
            return Drain(name, is_drained, key)

        done = taken(await self._writes.write(key, look))
        if is_drained and name == self._node:
            await leave_lead(self._node, self._machine, self._log)
        return done


async def leave_lead(
    node: str, machine: Machine, to: Log, is_ending: Callable[[str], bool] = lambda peer: False
) -> None:
    """A drained leader hands over to a voter that takes runs; where there is none it stays, and its runs wait.

    One that ends takes none either: it would hand the lead back at once, over and over, until it gave up.
    """
    for peer in to.status().members:
        known = machine.state.nodes.get(peer.name)
        if peer.name == node or known is None or known.drained or is_ending(peer.name):
            continue
        if peer.connected and peer.standing is Standing.VOTER:
            try:
                await to.transfer(peer.name)
            except RaftcronError as error:
                log.info("lead_kept code=%s detail=%s", error.code, error.detail)
            else:
                return


def _read(body: Any) -> tuple[str, bool]:
    fields, faults = fields_of({} if body is None else body, ("node", "drain"))
    name, is_drained = fields.get("node"), fields.get("drain", True)
    if not isinstance(name, str):
        what = 'is missing: a node\'s name, as in {"node": "n1"}'
        faults.append(Fault("/node", what if name is None else f"must be a node's name, not {kind_of(name)}"))
    if not isinstance(is_drained, bool):
        faults.append(Fault("/drain", f"must be a boolean, not {kind_of(is_drained)}"))
    refuse_any(faults)
    assert isinstance(name, str)
    return name, is_drained
