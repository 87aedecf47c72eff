"""Of what jobs name: schedules, calendars, groups, the default route of alerts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from raftcron.api.openapi.operations.parts import KEY, Operation, delete_of, get_of, json_body, list_of, one, put_of

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/v1/schedules:explain"): Operation(
        id="explainSchedule",
        summary="A schedule in words, its next times, and what about it may surprise; nothing is written",
        tag="schedules",
        headers=KEY,
        body=json_body(
            "ExplainBody",
            {
                "nightly": {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "from": "2026-03-28T00:00:00Z"},
                "several": {"schedule": ["@daily", "0 12 * * MON"], "count": 3},
            },
        ),
        answers={200: one("Explained", "what it means")},
        problems=(400, 401, 403, 413, 415, 422),
    ),
    ("GET", "/v1/calendars"): list_of("calendars", "listCalendars", "CalendarPage", tag="calendars"),
    ("GET", "/v1/calendars/{name}"): get_of(
        "a calendar", "getCalendar", "Calendar", "holidays", tag="calendars", headers=("ETag",)
    ),
    ("PUT", "/v1/calendars/{name}"): put_of(
        "a calendar, whose times no job fires that names it in `exclude`",
        "putCalendar",
        "Calendar",
        "holidays",
        json_body(
            "CalendarBody",
            {
                "days": {
                    "dates": ["2026-12-25", "2026-12-26"],
                    "schedules": ["* 0-5 1 1 *"],
                    "timezone": "Europe/Berlin",
                }
            },
        ),
        tag="calendars",
    ),
    ("DELETE", "/v1/calendars/{name}"): delete_of(
        "a calendar that no job names", "deleteCalendar", "holidays", tag="calendars"
    ),
    ("GET", "/v1/groups"): list_of("groups", "listGroups", "GroupPage", tag="groups"),
    ("GET", "/v1/groups/{name}"): get_of("a group", "getGroup", "Group", "database", tag="groups", headers=("ETag",)),
    ("PUT", "/v1/groups/{name}"): put_of(
        "a group: a cap on the runs at once of the jobs that name it",
        "putGroup",
        "Group",
        "database",
        json_body("GroupBody", {"five": {"max_running": 5}}),
        tag="groups",
    ),
    ("DELETE", "/v1/groups/{name}"): delete_of("a group that no job names", "deleteGroup", "database", tag="groups"),
    ("GET", "/v1/alerts/default"): replace(
        get_of("the default route of alerts", "getAlertRoute", "AlertRoute", "", tag="alerts", headers=("ETag",)),
        name=None,
    ),
    ("PUT", "/v1/alerts/default"): replace(
        put_of(
            "the default route of alerts: whom the runs of jobs without `alerts` are told to",
            "putAlertRoute",
            "AlertRoute",
            "",
            json_body(
                "AlertRouteBody", {"hook": {"alerts": [{"on": ["failed"], "url": "https://alerts.example.org/"}]}}
            ),
            tag="alerts",
        ),
        name=None,
    ),
    ("DELETE", "/v1/alerts/default"): replace(
        delete_of("the default route of alerts", "deleteAlertRoute", "", tag="alerts"), name=None
    ),
}
