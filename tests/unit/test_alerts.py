"""What is worth an alert, in which entry, and what is sent of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raftcron.core import alerts, route
from raftcron.core import commands as c
from raftcron.core.events import JobEvent, RunEvent, events_of
from raftcron.core.fields import CHECKS, Walk
from raftcron.core.model import Key, Run
from raftcron.runtime.alerts import body_of, text_of
from raftcron.runtime.events import Place
from tests.unit.machine import Machine, cluster
from tests.unit.restored import new_machine, restored

HOOK = {"url": "http://127.0.0.1:9/"}


def told(machine: Machine, command: c.Command, at: int | None = None) -> list[tuple[str, str]]:
    """The states and kinds of what the entry of this command is worth telling."""
    machine.write(command, at=at)
    events = events_of(machine.state, machine.state.index, command)
    return [(one.state, one.alert) for one in events if isinstance(one, RunEvent) and one.alert is not None]


def finish(run: Run, state: str) -> c.Finish:
    return c.Finish([c.Finished(run.id, run.fencing_token, state)])


@pytest.mark.parametrize(
    ("state", "kind"), [("failed", "failed"), ("timed_out", "failed"), ("lost", "lost"), ("succeeded", None)]
)
def test_an_end_is_told_of_once(state: str, kind: str | None) -> None:
    """In the entry that brings it; a late outcome, and a second report, say nothing."""
    machine = cluster()
    run = machine.fire(machine.put(), 2_000)
    assert told(machine, finish(run, state)) == ([] if kind is None else [(state, kind)])
    assert told(machine, finish(run, "succeeded")) == []


def test_only_the_last_attempt_is_told_of() -> None:
    """A run that is tried again has not failed yet."""
    machine = cluster()
    run = machine.fire(machine.put(retry={"max_attempts": 2}), 2_000)
    assert told(machine, finish(run, "failed")) == []
    assert run.state == "waiting_retry"


def test_the_first_success_after_failures_is_a_recovery() -> None:
    """And no other one."""
    machine = cluster()
    job = machine.put()
    kinds = []
    for number, state in enumerate(["succeeded", "failed", "lost", "succeeded", "succeeded"]):
        kinds += told(machine, finish(machine.fire(job, 2_000 + 1_000 * number), state))
    assert [kind for _, kind in kinds] == ["failed", "lost", "recovered"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("misfire", "missed"), ("expired", "missed"), ("coalesced", "missed"), ("paused", None), ("requested", None)],
)
def test_times_that_were_missed_are_told_of_together(reason: str, kind: str | None) -> None:
    """One alert for a row; what somebody wanted so is none."""
    machine = cluster()
    job = machine.put()
    summary = c.Summary(reason, 2_000, 5_000, 4)
    decide = c.Decide(c.Place("n1", 1), [c.Decision(job.uid, job.revision, 5_000, [], [summary])])
    assert told(machine, decide, 5_000) == ([] if kind is None else [("skipped", kind)])


@pytest.mark.parametrize(("late_ms", "kinds"), [(10_000, []), (10_001, [("running", "late")])])
def test_a_start_behind_the_grace_is_late(late_ms: int, kinds: list[Any]) -> None:
    """By one millisecond."""
    machine = cluster()
    job = machine.put()
    decision = c.Decision(job.uid, job.revision, 2_000, [c.Fire(2_000, 2_000)])
    assert told(machine, c.Decide(c.Place("n1", 1), [decision]), 2_000 + late_ms) == kinds


def test_where_nobody_is_told_there_is_no_mark() -> None:
    """It is set by the first job, or route, that names somebody; moves on, never back, and is in snapshots."""
    machine = cluster()
    machine.put()
    machine.done(c.MarkAlerts(1))
    assert machine.state.alert_marks == {}
    machine.put("told", alerts=[HOOK])
    mark = machine.state.alert_marks[alerts.MARK]
    assert mark.through == machine.state.index
    machine.put("other")
    for through, kept in ((mark.through + 1, mark.through + 1), (1, mark.through + 1), (1_000, mark.through + 1)):
        machine.done(c.MarkAlerts(through))
        assert mark.through == kept
    node = new_machine()
    for index, body in enumerate(machine.log, 1):
        node.apply(index, body)
    again = restored(node.snapshot()).state
    assert again.alert_marks == node.state.alert_marks
    assert again.digest == machine.state.digest


KEYS = ("a" * 24, "b" * 24)


def test_a_target_that_is_behind_has_a_mark_of_its_own() -> None:
    """It moves on alone, never back, and goes when the target has caught up; a snapshot carries it."""
    machine = cluster()
    machine.put("told", alerts=[HOOK])
    mark = machine.state.alert_marks[alerts.MARK]
    begin = mark.through
    for _ in range(9):
        machine.put(f"other-{machine.state.index}")
    machine.done(c.MarkAlerts(begin + 5, {KEYS[0]: 0, KEYS[1]: begin + 3}))
    assert (mark.through, mark.behind) == (begin + 5, {KEYS[0]: begin, KEYS[1]: begin + 3})
    machine.done(c.MarkAlerts(begin + 7, {KEYS[0]: begin + 2, KEYS[1]: begin + 1}))
    assert mark.behind == {KEYS[0]: begin + 2, KEYS[1]: begin + 3}
    node = new_machine()
    for index, body in enumerate(machine.log, 1):
        node.apply(index, body)
    again = restored(node.snapshot()).state
    assert again.alert_marks == node.state.alert_marks
    assert again.telling == machine.state.telling
    machine.done(c.MarkAlerts(begin + 7, {KEYS[1]: begin + 7}))
    assert (mark.through, mark.behind) == (begin + 7, {})
    many = {f"{number:024}": begin for number in range(alerts.BEHIND_MAX + 1)}
    assert machine.refused(c.MarkAlerts(begin + 8, many)) == "invalid"
    assert machine.refused(c.MarkAlerts(begin + 8, {"short": begin})) == "invalid"
    assert mark.through == begin + 7


@pytest.mark.parametrize("how", ["edited", "deleted", "silent"])
def test_the_mark_goes_with_the_last_who_names_somebody(how: str) -> None:
    """Jobs and the default route alike; and begins anew where somebody is named again."""
    machine = cluster()
    job = machine.put("told", alerts=[HOOK])
    machine.done(c.PutAlertRoute("default", route.canonical([HOOK])))
    if how == "deleted":
        machine.done(c.DeleteJob(job.name, [], job.revision))
    else:
        machine.put("told", alerts=[] if how == "edited" else [{"type": "none"}])
    assert alerts.MARK in machine.state.alert_marks
    revision = machine.state.alert_routes["default"].revision
    if how == "silent":
        machine.done(c.PutAlertRoute("default", route.canonical([]), revision))
    else:
        machine.done(c.DeleteAlertRoute("default", revision))
    assert machine.state.alert_marks == {}
    machine.put("again", alerts=[HOOK])
    assert machine.state.alert_marks[alerts.MARK].through == machine.state.index


def test_a_job_that_the_cluster_has_paused_is_told_of() -> None:
    """Since nobody has asked for it; a pause that somebody wanted says nothing."""
    machine = cluster()
    job = machine.put("backup")
    command = c.PauseJob(job.name, [], job.revision, "no such zone", is_forced=True)
    machine.done(command)
    (event,) = events_of(machine.state, machine.state.index, command)
    assert isinstance(event, JobEvent)
    assert event.alert == "paused"
    body = body_of(Place(7, 0), event, "c1")
    assert body == dict.fromkeys(body) | {
        "id": "7.0", "kind": "paused", "job": "backup", "state": "paused", "error": "no such zone",
        "at": body["at"], "cluster_id": "c1",
    }  # fmt: skip
    assert text_of(event) == "backup was paused by the cluster, which cannot tell its times\nno such zone"
    wanted = c.PauseJob(job.name, [], job.revision, "a walk")
    machine.done(wanted)
    assert [
        one.alert for one in events_of(machine.state, machine.state.index, wanted) if isinstance(one, JobEvent)
    ] == [None]


def test_a_job_that_names_nobody_takes_the_default_route() -> None:
    """One that says `none` does not; one that names somebody has no need of it."""
    machine = cluster()
    plain, silent = machine.put("plain"), machine.put("silent", alerts=[{"type": "none"}])
    named = machine.put("named", alerts=[{"type": "email", "to": "a@example.org", "on": ["late"]}])
    assert alerts.targets(machine.state, plain.uid) == ()
    machine.done(c.PutAlertRoute("default", route.canonical([HOOK])))
    assert alerts.targets(machine.state, plain.uid) == (alerts.Target(url=HOOK["url"]),)
    assert alerts.targets(machine.state, silent.uid) == ()
    assert alerts.targets(machine.state, named.uid) == (alerts.Target("email", ("late",), to="a@example.org"),)
    assert "late" not in alerts.Target().on


def test_a_route_is_written_under_what_was_seen_of_it() -> None:
    """And repeated under its key it is one write."""
    machine = cluster()
    key = Key("k", b"h", 0, 0, 0)
    stored = route.canonical([HOOK])
    assert machine.done(c.PutAlertRoute("default", stored, None, key)).status == 201
    assert machine.done(c.PutAlertRoute("default", stored, None, key)).replayed
    revision = machine.state.alert_routes["default"].revision
    assert machine.refused(c.PutAlertRoute("default", b"\x90")) == "stale"
    assert machine.refused(c.PutAlertRoute("other", b"\x90")) == "invalid"
    assert machine.refused(c.PutAlertRoute("default", b"\xc1", revision)) == "invalid"
    assert machine.refused(c.PutAlertRoute("default", route.canonical([7]), revision)) == "invalid"
    assert machine.refused(c.DeleteAlertRoute("default", revision + 1)) == "stale"
    machine.done(c.DeleteAlertRoute("default", revision))
    assert machine.refused(c.DeleteAlertRoute("default", revision)) == "not_found"


@pytest.mark.parametrize(
    ("listed", "pointers"),
    [
        ([HOOK, {"type": "slack", **HOOK}, {"type": "email", "to": "ops@example.org", "on": ["late"]}], []),
        ([{"type": "none"}], []),
        ([{"url": "${secret:hook}", "secret": "${secret:key}"}], []),
        ([], []),
        ({}, ["/alerts"]),
        ([HOOK] * 9, ["/alerts"]),
        ([{"type": "none"}, HOOK], ["/alerts"]),
        ([7], ["/alerts/0"]),
        ([{}], ["/alerts/0/url"]),
        ([{"type": "pager"}], ["/alerts/0/type"]),
        ([{"type": ["email"]}], ["/alerts/0/type"]),
        ([{**HOOK, "on": ["failed", "bored"]}], ["/alerts/0/on/1"]),
        ([{**HOOK, "on": "failed"}], ["/alerts/0/on"]),
        ([{"url": "ftp://x/"}], ["/alerts/0/url"]),
        ([{"url": "http://x/ y"}], ["/alerts/0/url"]),
        ([{**HOOK, "secret": "whsec_AAAA"}], ["/alerts/0/secret"]),
        ([{"type": "slack", **HOOK, "secret": "${secret:k}"}], ["/alerts/0/secret"]),
        ([{"type": "email", "url": "http://x/"}], ["/alerts/0/url", "/alerts/0/to"]),
        ([{"type": "email", "to": "a@b\r\nBcc: c@d"}], ["/alerts/0/to"]),
        ([{"type": "none", "on": ["failed"]}], ["/alerts/0/on"]),
    ],
    ids=str,
)
def test_every_fault_of_a_list_is_named(listed: Any, pointers: list[str]) -> None:
    """By pointer."""
    walk = Walk()
    CHECKS["/alerts"](walk, "/alerts", listed)
    assert [fault.pointer for fault in walk.faults] == pointers


def test_what_is_sent_of_an_event() -> None:
    """All that the contract names, under the event's id."""
    machine = cluster()
    run = machine.fire(machine.put("backup"), 2_000)
    command = c.Finish([c.Finished(run.id, run.fencing_token, "failed", error="no room", error_kind="exit")])
    machine.write(command)
    event = next(iter(events_of(machine.state, machine.state.index, command)))
    assert isinstance(event, RunEvent)
    assert body_of(Place(7, 0), event, "c1") == {
        "id": "7.0", "kind": "failed", "job": "backup", "run": run.id, "scheduled_time": "1970-01-01T00:00:02Z",
        "state": "failed", "reason": None, "error": "no room", "error_kind": "exit", "count": None, "attempt": 1,
        "node": event.node, "at": "1970-01-01T00:00:02Z", "cluster_id": "c1",
    }  # fmt: skip
    assert text_of(event).splitlines()[0] == "backup failed"
    assert text_of(event).endswith(": no room")
    assert "(4 times)" in text_of(msgspec.structs.replace(event, alert="missed", count=4))
