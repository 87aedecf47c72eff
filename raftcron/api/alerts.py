"""/v1/alerts/default: whom runs are told to where their job says nothing."""

from __future__ import annotations

from raftcron.api.named import Named
from raftcron.core.route import DEFAULT_ROUTE
from raftcron.runtime.alert_routes import route_view

ROUTES = Named(
    "alert", lambda state: state.alert_routes, route_view, lambda node: node.alert_routes, only=DEFAULT_ROUTE
)
