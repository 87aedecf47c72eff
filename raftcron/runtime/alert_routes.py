"""The use-cases of the default route of alerts: whom runs are told to where their job says nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftcron.core import route as written
from raftcron.core.commands import Command, DeleteAlertRoute, Done, PutAlertRoute
from raftcron.core.model import AlertRoute, Key
from raftcron.core.state import State
from raftcron.errors import Fault, InvalidError, NotFoundError
from raftcron.runtime.machine import Machine
from raftcron.runtime.small_bodies import counted
from raftcron.runtime.views import instant
from raftcron.runtime.writes import Precondition, Writes, taken

JudgeExecutor = Callable[[Mapping[str, Any]], list[Fault]]


class AlertRoutes:
    """All writes of it on one node; they run on the leader."""

    def __init__(self, *, machine: Machine, writes: Writes, judge: JudgeExecutor) -> None:
        """`judge` names what is wrong with an executor object."""
        self._machine = machine
        self._writes = writes
        self._judge = judge

    async def put(self, name: str, body: Any, precondition: Precondition, key: Key | None) -> Done:
        """Create (201) or replace (200).  Raises InvalidError, RevisionError."""
        listed, faults = written.check(body)
        faults = faults or tuple(url_faults(listed, self._judge))
        if faults:
            raise InvalidError(f"the route has {counted(len(faults))}; nothing was written", faults)
        stored = written.canonical(listed)

        def look() -> Command:
            route = self._machine.state.alert_routes.get(name)
            precondition.check(name, route, "route")
            return PutAlertRoute(name, stored, None if route is None else route.revision, key)

        return taken(await self._writes.write(key, look))

    async def delete(self, name: str, precondition: Precondition, key: Key | None) -> Done:
        """Raises NotFoundError, RevisionError."""

        def look() -> Command:
            route = self._machine.state.alert_routes.get(name)
            precondition.check(name, route, "route")
            if route is None:
                raise NotFoundError("there is no default route of alerts")
            return DeleteAlertRoute(name, route.revision, key)

        return taken(await self._writes.write(key, look))


def route_view(route: AlertRoute, state: State) -> dict[str, Any]:
    """The route as a JSON object."""
    return {
        "alerts": written.expand(route.definition),
        "revision": route.revision,
        "created_at": instant(route.created_at),
        "updated_at": instant(route.updated_at),
    }


def url_faults(listed: Any, judge: JudgeExecutor) -> list[Fault]:
    """What is wrong with the addresses of a list of alerts whose form is right: as of those that jobs call."""
    found = []
    for place, item in enumerate(listed if isinstance(listed, list) else []):
        url = item.get("url") if isinstance(item, dict) else None
        if isinstance(url, str) and not url.startswith("${secret:"):  # nobody knows yet what that will be
            faults = judge({"type": "http", "url": url})
            found += [Fault(f"/alerts/{place}{fault.pointer}", fault.message) for fault in faults]
    return found
