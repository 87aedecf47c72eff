"""A group as it is written: `{max_running}`, with every fault of a body named."""

from __future__ import annotations

from typing import Any

from raftcron.core.fields import Walk, escape, kind_of, near
from raftcron.core.instant import shown
from raftcron.errors import Fault

GROUPS_MAX = 1_000
MAX_RUNNING_MAX = 1_000_000  # more than all slots of the largest cluster
SERVER_SET = frozenset({"revision", "created_at", "updated_at", "jobs", "running", "queued"})


def check(body: Any, name: str) -> tuple[int, tuple[Fault, ...]]:
    """What is written, and all that is wrong with it.  `name` is the one in the path, which a body may repeat."""
    walk = Walk()
    if not isinstance(body, dict):
        walk.fault("", f'must be an object such as {{"max_running": 5}}, not {kind_of(body)}')
        return 0, tuple(walk.faults)
    if "name" in body and body["name"] != name:
        walk.fault("/name", f"is {shown(body['name'])}, but the path names {name!r}: leave it out, or make them equal")
    for key in sorted(body.keys() - SERVER_SET - {"name", "max_running"}):
        walk.fault(f"/{escape(key)}", "is not a field of a group" + near(key, ("name", "max_running")))
    if "max_running" not in body:
        walk.fault("/max_running", f"is missing: a whole number from 1 to {MAX_RUNNING_MAX}")
    else:
        walk.whole("/max_running", body["max_running"], 1, MAX_RUNNING_MAX)
    return 0 if walk.faults else body["max_running"], tuple(walk.faults)
