"""/v1/calendars: exclusion calendars, which jobs name in `exclude`."""

from __future__ import annotations

from raftcron.api.named import Named
from raftcron.runtime.calendars import calendar_view

ROUTES = Named("calendar", lambda state: state.calendars, calendar_view, lambda node: node.calendars)
