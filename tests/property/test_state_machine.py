"""Whatever the log holds: apply never raises, replay gives the same state, and the invariants hold after each entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcron.core import alerts, archive, audit, definition, exclusion, route
from raftcron.core import commands as c
from raftcron.core.apply import restore
from raftcron.core.model import ACTIVE, COUNTED_CAUSES, ENDED, ON_A_NODE, Key
from raftcron.core.placement import lane_of, parts_of
from raftcron.core.records import encoded
from raftcron.core.rows import FAILURES
from raftcron.core.state import State
from tests.unit.machine import Machine
from tests.unit.test_apply import anew

NAMES = ("a", "b")
NODES = ("n1", "n2", "n3")
small = st.integers(0, 6)
times = st.integers(0, 30).map(lambda n: n * 1_000)
definitions = st.sampled_from(
    [
        definition.canonical({"schedule": "@every 1s", "executor": {"type": kind}, **more})
        for kind in ("noop", "shell")
        for more in (
            {},
            {"delivery": "at_least_once", "retry": {"max_attempts": 2}, "history": {"runs": 2}},
            {"overlap": {"policy": "allow"}, "misfire": {"grace": "1s", "window": "5s"}},
            {"overlap": {"policy": "allow", "max_running": 2}, "start_deadline": "4s"},
            {"overlap": {"policy": "queue", "queue": 2}, "retry": {"max_attempts": 2}},
            {"overlap": {"policy": "replace", "max_running": 2}, "delivery": "at_least_once"},
            {"overlap": {"policy": "replace"}, "schedule": "@every 2s from last_end"},
            {"max_runs": 2, "exclude": ["x"], "alerts": [{"url": "http://x/"}]},
            {"schedule": "@every 2s from last_end", "overlap": {"policy": "allow"}},
            {"after": [{"job": "a", "on": "any"}], "overlap": {"policy": "allow"}},
            {"executor": {"type": "http", "async": True}, "delivery": "at_least_once", "group": "g"},
            {"placement": {"on": "any", "tags": {"zone": "a"}}, "group": "g", "overlap": {"policy": "allow"}},
            {"placement": {"on": "sticky", "priority": 9}, "group": "g", "history": {"runs": 1}},
            {"placement": {"on": "all"}, "delivery": "at_least_once", "overlap": {"policy": "allow"}},
            {"placement": {"shards": 2}, "group": "g", "history": {"runs": 1}, "delivery": "at_least_once"},
        )
    ]
)
tags = st.sampled_from([{}, {"zone": "a"}])
routes = st.sampled_from([b"\x90", route.canonical([{"url": "http://x/"}]), b"", b"\xc1"])
origins = st.none() | st.just(c.Origin("ci", "n1", "10.0.0.1", "PUT", "/v1/jobs/a"))
keys = st.none() | st.builds(lambda scope: Key(scope, b"h", 0, 0, 0), st.sampled_from(["k1", "k2"]))


def restore_of(state: State, decisions: list[c.Decision], through: int, key: Key | None) -> c.Restore:
    """A swap of whatever is staged."""
    chunks = list(state.staged.values())
    staging = chunks[0].staging if chunks else "none"
    digest = restore.digest_of([chunk.rows for chunk in chunks])
    return c.Restore(staging, len(chunks), digest, through, *restore.seen(state), decisions, key)


@st.composite
def command_of(draw: st.DrawFn, machine: Machine) -> c.Command:
    """Some command, true or false to the present state."""
    state = machine.state
    uid = draw(st.sampled_from([*state.by_uid, 7]))
    job = state.by_uid.get(uid)
    revision = job.revision if job is not None and draw(st.integers(0, 5)) else draw(small)
    run = draw(st.sampled_from([*state.runs, "none"]))
    known = state.runs.get(run)
    token = known.fencing_token if known is not None and draw(st.integers(0, 5)) else draw(small)
    tokens = [c.Token(run, token)]
    place = c.Place(draw(st.sampled_from(NODES)), draw(st.integers(1, 2)))
    name = draw(st.sampled_from(NAMES))
    named = state.jobs.get(name)
    seen = named.revision if named is not None and draw(st.integers(0, 5)) else draw(st.none() | small)
    due = draw(times)
    fires = [
        c.Fire(n, n + draw(st.sampled_from([0, 0, 4_000])), draw(st.sampled_from(sorted(COUNTED_CAUSES))))
        for n in sorted(draw(st.sets(times, max_size=3)))
    ]
    decisions = [c.Decision(uid, revision, due, fires, [])]
    key = draw(keys)
    group, calendar, secret = state.groups.get("g"), state.calendars.get("x"), state.secrets.get(name)
    route = state.alert_routes.get("default")
    options: list[Callable[[], c.Command]] = [  # only the chosen one is drawn
        lambda: c.Lead(place.node, place.incarnation, 1, "", "", "", draw(st.sampled_from([0, 300, 600, 1 << 20]))),
        lambda: c.Announce(place.node, place.incarnation, "", "", "", draw(small), draw(small), tags=draw(tags)),
        lambda: c.PutJob(
            name,
            draw(definitions),
            draw(st.none() | st.just(due)),
            decisions,
            seen,
            paused=draw(st.none() | st.booleans()),
            unowed=draw(st.none() | st.just(c.Summary("paused", due, due + 1_000, 2))),
            key=key,
        ),
        lambda: c.DeleteJob(name, decisions, seen or 0, None, draw(st.booleans()), key),
        lambda: c.PauseJob(name, decisions, seen or 0, is_forced=draw(st.booleans())),
        lambda: c.ResumeJob(name, seen or 0, due, c.Summary("paused", due, due + 1_000, 2)),
        lambda: c.Trigger(name, draw(st.none() | st.just(place)), None, draw(st.booleans()), key),
        lambda: c.Decide(
            place, decisions, [c.Place(node, 1) for node in sorted(draw(st.sets(st.sampled_from(NODES))))]
        ),
        lambda: c.Decide(place, [c.Decision(uid, revision, due, [], [c.Summary("expired", due - 1_000, due, 2)])]),
        lambda: c.Assign([c.Assignment(run, place, draw(st.booleans()))]),
        lambda: c.Start(tokens),
        lambda: c.NotStarted(tokens),
        lambda: c.Finish([c.Finished(run, token, draw(st.sampled_from(["succeeded", "failed", "lost", "nonsense"])))]),
        lambda: c.Lose(place.node, place.incarnation, tokens),
        lambda: c.Expire([run], draw(st.sampled_from([[], [run]]))),
        lambda: c.Divide([c.Parting(run, list(NODES[: draw(small)]))]),
        lambda: c.Unassign(tokens),
        lambda: c.Drain(place.node, draw(st.booleans()), key),
        lambda: c.PutGroup("g", draw(small), group.revision if group else None, key),
        lambda: c.DeleteGroup("g", group.revision if group and draw(st.booleans()) else 0, key),
        lambda: c.PutAlertRoute("default", draw(routes), route.revision if route else None, key),
        lambda: c.DeleteAlertRoute("default", route.revision if route and draw(st.booleans()) else 0, key),
        lambda: c.MarkAlerts(draw(small), draw(st.dictionaries(st.sampled_from(["a" * 24, "b" * 24, ""]), small))),
        lambda: c.Requeue([run]),
        lambda: c.TakeOver([c.TakenOver(run, token, 5_000, 202, b"tail")]),
        lambda: c.TimeOut(tokens),
        lambda: c.Conclude(
            run, token, draw(st.sampled_from(["succeeded", "failed", "cancelled", "nonsense"])), "so", key
        ),
        lambda: c.Hear(run, token, key),
        lambda: c.Backfill(name, sorted(draw(st.sets(times, max_size=3))), seen or 0, key),
        lambda: c.Rerun(run, draw(st.none() | st.just(place)), draw(st.booleans()), key),
        lambda: c.Cancel(run, key),
        lambda: c.PutCalendar(
            "x",
            exclusion.canonical({"dates": [f"2030-01-0{draw(st.integers(1, 3))}"]}),
            due,
            decisions,
            calendar.revision if calendar and draw(st.integers(0, 5)) else None,
            key,
            draw(st.none() | st.integers(0, state.index)),
        ),
        lambda: c.PutCalendar("x", b"\xc1", due),
        lambda: c.DeleteCalendar("x", calendar.revision if calendar and draw(st.booleans()) else 0, key),
        lambda: c.SkipNext(name, draw(st.lists(times, max_size=3)), seen or 0, key),
        lambda: c.ApplyJobs(
            [c.PutJob(name, draw(definitions), due, decisions, seen), c.PutJob("new", draw(definitions), None)],
            [c.DeleteJob(other, [], job.revision) for other, job in state.jobs.items() if other != name][:1],
            key,
        ),
        lambda: c.ApplyJobs([c.PutJob(name, draw(definitions), None)] * 2),
        lambda: c.CreateToken(name, bytes(draw(st.sampled_from([31, 32]))), "admin", "", "", draw(st.booleans()), key),
        lambda: c.DeleteToken(name, key),
        lambda: c.Note("said", key),
        lambda: c.KeepKey(b"wrapped", b"salt", draw(small)),
        lambda: c.PutSecret(name, b"sealed", secret.revision if secret else draw(small), key),
        lambda: c.DeleteSecret(name, key),
        lambda: c.Stage(
            draw(st.sampled_from(["s", "t"])),
            draw(st.sampled_from([0, len(state.staged)])),
            "jobs",
            msgspec.msgpack.encode([archive.JobRow(name, draw(definitions), draw(st.booleans()), "note", due)]),
        ),
        lambda: c.Stage(
            "s", len(state.staged), "groups", msgspec.msgpack.encode([archive.GroupRow("g", draw(st.integers(1, 6)))])
        ),
        lambda: c.Stage(
            "s", len(state.staged), "routes", msgspec.msgpack.encode([archive.RouteRow("default", draw(routes))])
        ),
        lambda: restore_of(state, decisions, due, key),
        lambda: restore_of(state, [], due, key),
    ]
    return draw(st.sampled_from(options))()


def check(state: State) -> None:
    """Indexes equal what they are derived from; counters and tokens keep their laws."""
    active = {run.id for run in state.runs.values() if run.state in ACTIVE and run.part is None}
    assert active == {run_id for runs in state.active.values() for run_id in runs}
    check_parts(state)
    here = [run for run in state.runs.values() if run.state in ON_A_NODE and run.split is None]
    on_node = {run.id for run in here if run.answer_by is None}
    assert state.taken_over == {run.id: run for run in state.runs.values() if run.answer_by is not None}
    assert state.group_running == Counter(run.group for run in here if run.group is not None)
    assert on_node == {run_id for runs in state.on_node.values() for run_id in runs}
    queued = {run.id: run.not_before for run in state.runs.values() if run.state == "queued"}
    retries = {run.id for run in state.runs.values() if run.state == "waiting_retry"}
    now = {run_id for run_id, not_before in queued.items() if not not_before}
    assert state.queued.keys() == {run_id for run_id in now if state.may_start(state.runs[run_id])}
    assert state.held.keys() == now - state.queued.keys()
    assert state.waiting.keys() == retries | (queued.keys() - now)
    turns = {run.id for run in state.runs.values() if run.waits_turn}
    lines = [*state.turns.values(), *state.backfills.values()]
    assert turns == {run_id for runs in lines for run_id in runs}
    assert turns <= queued.keys()
    with_turns = (*state.turns, *state.backfills)
    assert not any(map(state.has_room, with_turns)), "a run waits for its turn where there is room"
    for uid, line in state.backfills.items():  # as they are found in a snapshot
        assert list(line) == [run_id for run_id in state.active[uid] if run_id in line]
    for uid in state.turns:  # what of a backfill is not under way is in nobody's way
        of_backfills = [run for run in state.active[uid].values() if run.cause == "backfill" and not run.waits_turn]
        assert not any(run.state in ("queued", "assigned") for run in of_backfills)
    lanes = {run_id: lane for lane, runs in state.lanes.items() for run_id in runs}
    assert lanes.keys() == state.queued.keys()
    assert lanes == {run_id: lane_of(state.policies[run.uid], run) for run_id, run in state.queued.items()}
    for node, runs in state.on_node.items():
        assert state.processes.get(node, 0) == sum(run.is_process for run in runs.values())
    assert not any(run.is_process for run in state.runs.values() if run.id not in on_node)
    for job in state.jobs.values():
        rows = state.runs_of(job.uid)
        assert len(rows) == len({row.id for row in rows})
        assert job.fired >= 0
        assert job.skipped >= 0
        assert job.fire_count >= 0
        assert all(at > job.decided_through for at in job.skips)
        exclude = state.policies[job.uid].recurrence.exclude
        assert all(job.uid in state.calendar_jobs[name] for name in exclude)
        assert all(name in state.calendars for name in exclude)
    assert sum(map(len, state.calendar_jobs.values())) == sum(
        len(policy.recurrence.exclude) for policy in state.policies.values()
    )
    check_history(state)
    assert (alerts.MARK in state.alert_marks) == alerts.names_somebody(state)
    tokens = [run.fencing_token for run in state.runs.values() if run.fencing_token]
    assert len(tokens) == len(set(tokens))
    assert all(token < state.next_token for token in tokens)
    kept = [*state.audit.values()]
    assert audit.faults(kept, state.audit_chain.get(audit.CHAIN, audit.AuditChain(audit.CHAIN))) == []
    assert not state.ended and not state.ended_parts, "what ends in an entry is followed in it"
    assert state.digest == anew(state)


def check_history(state: State) -> None:
    """What is bounded is counted right, and each row that may leave stands in line once; the last run never does."""
    last = {job.last_run for job in state.jobs.values()}
    assert all(run_id is None or run_id in state.runs for run_id in last)
    ended = {run.id: run for run in state.runs.values() if run.state in ENDED}
    in_line = [*state.ordinary.ids(state.runs), *state.failures.ids(state.runs)]
    assert sorted(in_line) == sorted(ended.keys() - last)
    assert set(state.failures.ids(state.runs)) == {run_id for run_id in in_line if ended[run_id].state in FAILURES}
    sizes = {run_id: len(encoded(run)) - len(run.output_tail) for run_id, run in ended.items()}
    assert state.history_bytes == sum(sizes[run_id] for run_id in in_line)
    assert state.tails_bytes == sum(len(run.output_tail) for run in state.runs.values())
    for uid, job in state.by_uid.items():
        of_job = {run_id for run_id, run in ended.items() if run.uid == uid and run.part is None}
        assert sorted(state.ended_of(uid)) == sorted(of_job)
        assert len(of_job) <= max(1, state.policies[uid].history_runs) + (job.last_run in state.active.get(uid, ()))
    orphans = ended.keys() - {run_id for uid in state.by_uid for run_id in state.ended_of(uid)}
    assert {run_id for run_id in orphans if ended[run_id].part is None} <= set(state.orphans)


def check_parts(state: State) -> None:
    """Parts have a parent that knows them, and a parent ends with the last of them."""
    for run in state.runs.values():
        if run.part is not None:
            parent = state.runs[run.part.parent]
            assert run.id in parts_of(parent)
            assert (run.id in state.active_parts.get(parent.id, {})) == (run.state in ACTIVE)
        assert (run.split is not None) == (run.id in state.divided)
        if run.split is not None:
            ended = sum(run.split.tally.values())
            assert ended + len(state.active_parts.get(run.id, ())) == len(run.split.names)
            assert (run.state in ACTIVE) == (ended < len(run.split.names))
    assert not state.ended_parts


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_log_is_total_deterministic_and_keeps_the_invariants(data: st.DataObject) -> None:
    """I1, I3, I5, I7, I13 and I14 over random logs of commands, stale and fresh."""
    machine = Machine()
    machine.lead()
    machine.announce("n1")
    machine.write(c.PutGroup("g", 1))
    machine.put("a")
    watermarks: dict[int, int] = {}
    cluster_time, decided = 0, set()
    for _ in range(data.draw(st.integers(1, 40))):
        runs_before = set(machine.state.runs)
        epoch = machine.state.epoch if data.draw(st.integers(0, 9)) else data.draw(small)
        command, origin = data.draw(command_of(machine)), data.draw(origins)
        machine.write(command, epoch=epoch, at=data.draw(times), origin=origin)
        state = machine.state
        check(state)
        assert state.cluster_time >= cluster_time
        cluster_time = state.cluster_time
        for job in state.jobs.values():
            assert job.decided_through >= watermarks.get(job.uid, job.decided_through)
            watermarks[job.uid] = job.decided_through
        for run_id in set(state.runs) - runs_before:
            assert run_id not in decided, "a scheduled time was decided twice"
            decided.add(run_id)
    again = Machine()
    for body in machine.log:
        again.append(body)
    assert again.state.digest == machine.state.digest
    assert list(again.state.runs) == list(machine.state.runs)
