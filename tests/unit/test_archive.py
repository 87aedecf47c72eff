"""An archive is taken whole and unchanged, or not at all; and what a restore's entries do to a state."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
import pytest

from raftcron.core import archive, definition, route
from raftcron.core import commands as c
from raftcron.core.apply import restore as applied
from raftcron.core.archive import CalendarRow, GroupRow, Head, JobRow, Reader, RouteRow, Row, StagedChunk
from raftcron.core.exclusion import canonical
from raftcron.core.image import Reader as ImageReader
from raftcron.core.image import image
from raftcron.core.model import Policy
from raftcron.errors import InvalidError, TooLargeError
from tests.unit.machine import NOOP, Machine

ROUTE = RouteRow("default", route.canonical([{"url": "http://127.0.0.1:9/"}]))


def stored(**fields: object) -> bytes:
    return definition.canonical({"schedule": "@every 1s", "executor": NOOP, **fields})


def written(jobs: int = 600) -> bytes:
    rows: dict[str, list[Row]] = {
        "calendars": [CalendarRow("x", canonical({"dates": ["2030-01-01"]}))],
        "groups": [GroupRow("g", 3)],
        "routes": [ROUTE],
        "jobs": [JobRow(f"job-{n}", stored(description=str(n))) for n in range(jobs)],
    }
    head = Head("cluster", 7, 1_000, {kind: len(found) for kind, found in rows.items()})
    return b"".join(archive.write(head, rows.items()))


def meant(jobs: dict[str, JobRow]) -> dict[str, Policy]:
    return {name: definition.policy_of(row.definition) for name, row in jobs.items()}


def read(data: bytes, step: int = 1 << 16) -> dict[str, list[Row]]:
    reader, found = Reader(), dict[str, list[Row]]()
    for at in range(0, len(data), step):
        for block in reader.feed(data[at : at + step]):
            found.setdefault(block.kind, []).extend(block.rows)
    reader.finish()
    return found


@pytest.mark.parametrize("step", [1, 1_000, 1 << 20])
def test_what_was_written_is_read_in_pieces_of_any_size(step: int) -> None:
    """Every row comes back as it was."""
    found = read(written(60 if step == 1 else 600), step)
    assert found["groups"] == [GroupRow("g", 3)]
    assert found["routes"] == [ROUTE]
    assert found["jobs"][3] == JobRow("job-3", stored(description="3"))


def test_an_archive_that_was_cut_anywhere_is_refused() -> None:
    """Where it ends is named."""
    data = written(20)
    for end in range(0, len(data), 7):
        with pytest.raises(InvalidError, match=rf"byte {end}\b.*cut off"):
            read(data[:end])


def test_an_archive_that_was_changed_anywhere_is_refused() -> None:
    """One bit is enough, wherever it is."""
    data = written(20)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        with pytest.raises(InvalidError, match=r"byte \d+"):
            read(bytes(changed))


def test_a_block_that_is_missing_or_comes_after_the_end_is_refused() -> None:
    """Each block may be right by itself."""
    data = written(20)
    starts, at = [], len(archive.MAGIC) + 1
    while at < len(data):
        starts.append(at)
        at += 20 + int.from_bytes(data[at : at + 4], "big")
    with pytest.raises(InvalidError, match="blocks are missing"):
        read(data[: starts[2]] + data[starts[3] :])
    with pytest.raises(InvalidError, match="follow the end mark"):
        read(data + b"x")


@pytest.mark.parametrize("rows", [b"\x91\x92\xa1\x80\x03", b"\x91\x93\xa1g\x03" + b"\x91" * 5_000 + b"\xc0"])
def test_a_block_that_cannot_be_read_is_refused(rows: bytes) -> None:
    """Though its checksum is right: text that is no UTF-8, and what is nested too deep."""
    data = written(1)
    start = len(archive.MAGIC) + 1
    content = msgspec.msgpack.encode(("groups", msgspec.Raw(rows)))
    frame = len(content).to_bytes(4, "big") + blake2b(content, digest_size=archive.DIGEST_BYTES).digest() + content
    with pytest.raises(InvalidError, match=r"byte \d+: a block cannot be decoded"):
        read(data[: start + 20 + int.from_bytes(data[start : start + 4], "big")] + frame)


def test_a_newer_version_is_named() -> None:
    """With what to do."""
    data = bytearray(written(1))
    data[len(archive.MAGIC)] = archive.ARCHIVE_VERSION + 1
    with pytest.raises(InvalidError, match=r"has version 2.*a newer release wrote it"):
        read(bytes(data))


def test_an_archive_over_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as so many bytes have come."""
    monkeypatch.setattr(archive, "ARCHIVE_BYTES_MAX", 5_000)
    with pytest.raises(TooLargeError):
        read(written(600), 1_000)


def test_what_does_not_stand_together_is_named() -> None:
    """A calendar or a group that is not there, and jobs that would start each other."""
    after = {"a": "b", "b": "c", "c": "a"}
    ring = {name: JobRow(name, stored(after=[{"job": parent}])) for name, parent in after.items()}
    assert "ring" in (archive.set_fault(meant(ring), [], []) or "")
    del ring["c"]
    assert archive.set_fault(meant(ring), [], []) is None
    assert "calendar 'x'" in (archive.set_fault(meant({"a": JobRow("a", stored(exclude=["x"]))}), ["y"], []) or "")
    assert "group 'g'" in (archive.set_fault(meant({"a": JobRow("a", stored(group="g"))}), [], []) or "")


# ---- entries


def staged(machine: Machine, *rows: Row, staging: str = "s") -> list[bytes]:
    """Stage these jobs, one a chunk."""
    chunks = [msgspec.msgpack.encode([row]) for row in rows]
    for number, chunk in enumerate(chunks):
        machine.done(c.Stage(staging, number, "jobs", chunk))
    return chunks


def swap(machine: Machine, chunks: list[bytes], *, staging: str = "s", through: int | None = None) -> c.Outcome:
    seen = applied.seen(machine.state)
    through = machine.at if through is None else through
    return machine.write(c.Restore(staging, len(chunks), applied.digest_of(chunks), through, *seen))


def test_a_restore_creates_replaces_and_deletes_in_one_entry() -> None:
    """What is queued of a job that goes is skipped; new jobs have ids of their own, and owe nothing from before."""
    machine = Machine()
    machine.lead()
    kept, gone = machine.put("kept"), machine.put("gone")
    machine.done(c.Trigger("gone", None))
    rows = [
        JobRow("kept", stored(description="x"), True, "why", 9_000, "o"),
        JobRow("b", stored()),
        JobRow("c", stored()),
    ]
    machine.at = 50_000
    outcome = swap(machine, staged(machine, *rows))
    assert isinstance(outcome, c.Done)
    assert outcome.subject == "jobs=3 calendars=0 groups=0 deleted=1"
    state = machine.state
    assert sorted(state.jobs) == ["b", "c", "kept"]
    assert not state.staged
    assert state.jobs["kept"].uid == kept.uid
    assert (kept.paused, kept.pause_note, kept.pause_until, kept.owner) == (True, "why", 9_000, "o")
    assert [run.reason for run in state.runs.values() if run.uid == gone.uid] == ["deleted"]
    assert len(state.by_uid) == 3
    assert all(job.decided_through >= 50_000 for job in state.jobs.values())


def test_nothing_changes_where_a_restore_is_refused() -> None:
    """A job written meanwhile, another digest, a name twice, a group that is not there."""
    machine = Machine()
    machine.lead()
    machine.put("a")
    chunks = staged(machine, JobRow("b", stored()))
    seen = applied.seen(machine.state)
    machine.put("a", description="new")
    before = dict(machine.state.jobs)
    assert machine.refused(c.Restore("s", 1, applied.digest_of(chunks), 1_000, *seen)) == "stale"
    assert isinstance(swap(machine, [b"other"]), c.Refused)
    for rows in ([JobRow("b", stored())] * 2, [JobRow("b", stored(group="g"))]):
        refused = swap(machine, staged(machine, *rows, staging=str(len(rows))), staging=str(len(rows)))
        assert isinstance(refused, c.Refused)
        assert refused.code == "invalid"
    assert machine.state.jobs == before


def test_one_staging_at_a_time_and_for_an_hour() -> None:
    """Another one drops it; so does time.  A snapshot carries it."""
    machine = Machine()
    machine.lead()
    first = staged(machine, JobRow("a", stored()), JobRow("b", stored()), staging="first")
    reader = ImageReader()
    for block in image(machine.state):
        reader.feed(block)
    copy = reader.finish()
    assert copy.staged == machine.state.staged
    assert copy.digest == machine.state.digest
    second = staged(machine, JobRow("c", stored()), staging="second")
    assert [chunk.staging for chunk in machine.state.staged.values()] == ["second"]
    assert isinstance(swap(machine, first, staging="first"), c.Refused)
    machine.write(c.Note("later"), at=machine.at + archive.STAGING_LIFE_MS)
    assert not machine.state.staged
    assert isinstance(swap(machine, second, staging="second"), c.Refused)
    assert not machine.state.jobs


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_node_that_has_chunks_from_a_snapshot_swaps_in_the_same(at: int) -> None:
    """What was read as it came is not in a snapshot: it is read again, wherever in the staging that was made."""
    machine = Machine()
    machine.lead()
    machine.put("kept")
    rows = [
        JobRow("kept", stored(description="x")),
        JobRow("b", stored(max_runs=2), fire_count=1),
        JobRow("c", stored()),
    ]
    chunks = [msgspec.msgpack.encode([row]) for row in rows]
    copy = Machine()
    for number, chunk in enumerate([*chunks, b""]):
        if number == at:
            reader = ImageReader()
            for block in image(machine.state):
                reader.feed(block)
            copy.state, copy.log = reader.finish(), list(machine.log)
        if chunk:
            machine.done(c.Stage("s", number, "jobs", chunk))
    for body in machine.log[len(copy.log) :]:
        copy.append(body)
    assert isinstance(swap(machine, chunks), c.Done)
    assert isinstance(copy.append(machine.log[-1]), c.Done)
    assert copy.state.digest == machine.state.digest
    assert copy.state.jobs == machine.state.jobs
    assert copy.state.policies == machine.state.policies
    assert copy.state.staging is machine.state.staging is None


def test_what_a_restore_has_seen_is_the_newest_of_all_that_times_follow_from() -> None:
    """A calendar that a job names counts, one that none names does not."""
    machine = Machine()
    machine.lead()
    assert applied.seen(machine.state) == (0, 0)
    for name in ("named", "other"):
        machine.done(c.PutCalendar(name, canonical({"dates": ["2026-12-24"]}), 0))
    machine.put("a", exclude=["named"])
    machine.put("b")
    machine.done(c.PutCalendar("other", canonical({"dates": ["2026-12-25"]}), 0, seen_revision=3))
    assert applied.seen(machine.state) == (2, machine.state.jobs["b"].revision)
    machine.done(c.PutCalendar("named", canonical({"dates": ["2026-12-25"]}), 0, seen_revision=2))
    assert applied.seen(machine.state) == (2, machine.state.calendars["named"].revision)
    assert applied.seen(machine.state)[1] == max(map(machine.state.revision_of, machine.state.jobs.values()))


def test_a_staging_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks and in bytes; what cannot be read is not kept."""
    machine = Machine()
    machine.lead()
    chunk = msgspec.msgpack.encode([JobRow("a", stored())])
    assert machine.refused(c.Stage("s", 0, "jobs", b"\xc1")) == "invalid"
    assert machine.refused(c.Stage("s", 0, "what", chunk)) == "invalid"
    monkeypatch.setattr(archive, "CHUNKS_MAX", 2)
    staged(machine, JobRow("a", stored()), JobRow("b", stored()))
    assert machine.refused(c.Stage("s", 2, "jobs", chunk)) == "invalid"
    monkeypatch.setattr(archive, "CHUNKS_MAX", 9)
    monkeypatch.setattr(archive, "STAGED_BYTES_MAX", 3 * len(chunk) - 1)
    assert machine.refused(c.Stage("s", 2, "jobs", chunk)) == "invalid"
    assert [type(one) for one in machine.state.staged.values()] == [StagedChunk] * 2
