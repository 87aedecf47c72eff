"""Stamps commands with epoch and time and puts them into the log; used by every loop and use-case of a leader."""

from __future__ import annotations

from raftcron.core.codec import encode_entry
from raftcron.core.commands import Command, Done, Entry, Origin, Outcome, Refused
from raftcron.errors import InvalidError, UnavailableError
from raftcron.ports import Log
from raftcron.runtime.clocks import TrustedTime
from raftcron.runtime.machine import Machine
from raftcron.runtime.origin import unfit


class Proposer:
    """The leader's pen."""

    def __init__(self, log: Log, machine: Machine, time: TrustedTime) -> None:
        self._log = log
        self._machine = machine
        self._time = time

    async def propose(self, command: Command, origin: Origin | None = None) -> Outcome:
        """Replicate one command; returns its outcome once this node has applied it.

        `origin` is who asked for it, None where nobody did: what has one stands in the audit trail.

        Raises UnavailableError (certainly not written, also where the log had moved to another epoch, or where no time
        is known to stamp it with) or UnknownOutcomeError; InvalidError where the request that asks for it is unfit.
        """
        if origin is not None and unfit.get():
            raise InvalidError("the request is not valid; nothing was written", tuple(unfit.get()))
        epoch = self._log.leading_epoch
        if epoch is None:
            raise UnavailableError("this node does not lead: nothing was written; repeat the request")
        await self._time.settled()
        body = encode_entry(Entry(epoch, self._time.now_ms(), command, origin))
        applied = await self._log.propose(body, epoch)
        outcome = applied.outcome
        if isinstance(outcome, Refused):
            if outcome.code == "epoch":
                raise UnavailableError("the lead has changed: nothing was written; repeat the request")
            return outcome
        assert isinstance(outcome, Done), "apply answers Done or Refused"
        return outcome
