"""/v1/groups: caps on runs at once, which jobs name in `group`."""

from __future__ import annotations

from raftcron.api.named import Named
from raftcron.runtime.groups import group_view

ROUTES = Named("group", lambda state: state.groups, group_view, lambda node: node.groups)
