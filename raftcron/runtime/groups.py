"""The use-cases of groups: named caps on how many runs of the jobs that name one are on nodes at once."""

from __future__ import annotations

from typing import Any

from raftcron.core import group as groups
from raftcron.core.commands import Command, DeleteGroup, Done, PutGroup
from raftcron.core.fields import name_fault
from raftcron.core.model import Group, Key
from raftcron.core.state import State
from raftcron.errors import Fault, InvalidError, NotFoundError
from raftcron.runtime.machine import Machine
from raftcron.runtime.small_bodies import counted
from raftcron.runtime.views import instant
from raftcron.runtime.writes import Precondition, Writes, taken


class Groups:
    """All writes of groups of one node; they run on the leader."""

    def __init__(self, *, machine: Machine, writes: Writes) -> None:
        self._machine = machine
        self._writes = writes

    async def put(self, name: str, body: Any, precondition: Precondition, key: Key | None) -> Done:
        """Create (201) or replace (200).  Raises InvalidError, RevisionError, ConflictError."""
        max_running, faults = groups.check(body, name)
        if (problem := name_fault(name)) is not None:
            faults = (Fault("/name", f"of the path: {problem}"), *faults)
        if faults:
            raise InvalidError(f"the group has {counted(len(faults))}; nothing was written", faults)

        def look() -> Command:
            group = self._machine.state.groups.get(name)
            precondition.check(name, group, "group")
            return PutGroup(name, max_running, None if group is None else group.revision, key)

        return taken(await self._writes.write(key, look))

    async def delete(self, name: str, precondition: Precondition, key: Key | None) -> Done:
        """Raises NotFoundError, RevisionError, and ConflictError while a job names it."""

        def look() -> Command:
            group = self._machine.state.groups.get(name)
            precondition.check(name, group, "group")
            if group is None:
                raise NotFoundError(f"there is no group {name[:200]!r}")
            return DeleteGroup(name, group.revision, key)

        return taken(await self._writes.write(key, look))


def group_view(group: Group, state: State) -> dict[str, Any]:
    """A group as a JSON object; `jobs` is how many name it, `running` and `queued` how its runs stand now."""
    return {
        "name": group.name,
        "max_running": group.max_running,
        "jobs": len(state.group_jobs.get(group.name, ())),
        "running": state.group_running.get(group.name, 0),
        "queued": sum(len(runs) for lane, runs in state.lanes.items() if lane.group == group.name),
        "revision": group.revision,
        "created_at": instant(group.created_at),
        "updated_at": instant(group.updated_at),
    }
