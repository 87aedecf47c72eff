"""The operations of the interface: what each route is for, what it takes, and how it answers.  One entry a route.

Whoever adds a route to api/app.py adds its entry to the file of its resource here; tests/api/test_openapi.py holds
entries and handlers together, tests/api/test_statuses.py asks for each status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftcron.api.openapi.operations import access, cluster, jobs, named, node, runs
from raftcron.api.openapi.operations.parts import Answer, Body, Operation, Parameter

__all__ = ["OPERATIONS", "Answer", "Body", "Operation", "Parameter"]

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    **jobs.OPERATIONS,
    **runs.OPERATIONS,
    **named.OPERATIONS,
    **cluster.OPERATIONS,
    **access.OPERATIONS,
    **node.OPERATIONS,
}
