"""A follower recounts what jobs owed, and sees what a planner drops and what a timeline has lost; nothing when well."""

from __future__ import annotations

import importlib.resources
import logging
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pytest

from raftcron.core import definition, ledger, planner, schedule, zone
from raftcron.core.commands import Decision
from raftcron.core.model import Job, Policy
from raftcron.core.timeline import Group, Timeline
from raftcron.core.times import schedules_of
from raftcron.runtime.conservation import Conservation
from tests.scenarios.scene import Scene, play


def watch(scene: Scene) -> Conservation:
    """Of the follower."""
    n2 = scene.names["n2"]
    return Conservation(machine=n2.machine, time=n2.time, is_on_duty=lambda: True)


async def many(scene: Scene) -> None:
    """Jobs of every kind."""
    await scene.put("every", schedule="@every 1s")
    await scene.put("cron", schedule=["*/2 * * * * *", "@every 3s"], overlap={"policy": "allow"})
    await scene.put("jitter", schedule="*/5 * * * * *", jitter="3s")
    await scene.put("end", schedule="@every 2s from last_end")
    await scene.put("few", schedule="@every 1s", max_runs=2)
    await scene.put("manual", schedule="@manual")


def test_all_is_well_while_nothing_is_lost() -> None:
    """Through overlaps, an edit, a gap without a leader, and times that come to an end."""

    async def act(scene: Scene) -> None:
        found = watch(scene)
        await many(scene)
        for _ in range(5):
            await scene.seconds(3)
            await found.step()
            assert (found.difference, found.overdue) == (0, 0)
        await scene.put("every", schedule="@every 2s")
        await scene.seconds(4)
        scene.cluster.depose()
        await scene.seconds(4)
        scene.elect("n1")
        await scene.seconds(3)
        await found.step()
        await found.step()
        assert (found.difference, found.overdue) == (0, 0)
        assert found.checked > 10
        assert found.left_out > 0  # `from last_end`

    play(act)


def test_a_planner_that_drops_a_single_time_is_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The leader is the shipped one, but for one time of one job that its planner forgets."""
    decide, dropped = planner.decide, []

    def forgetful(job: Job, policy: Policy, group: Group, *rest: Any) -> Decision | None:
        decision = decide(job, policy, group, *rest)
        if decision is not None and job.name == "every" and job.fired == 5 and not dropped:
            dropped.append(decision.fires[0].scheduled_time)
            return Decision(decision.uid, decision.revision, decision.through, decision.fires[1:], decision.summaries)
        return decision

    async def act(scene: Scene) -> None:
        found = watch(scene)
        await many(scene)
        monkeypatch.setattr(planner, "decide", forgetful)
        await scene.seconds(4)
        await found.step()
        assert found.difference == 0
        await scene.seconds(5)
        await found.step()
        assert len(dropped) == 1
        assert (found.difference, found.overdue) == (1, 0)
        assert "conservation_broken job=every difference=-1" in caplog.text
        await scene.seconds(3)
        await found.step()
        assert found.difference == 1, "it does not heal by itself"
        assert caplog.text.count("conservation_broken") == 1
        await scene.put("every", schedule="@every 4s")  # it counts anew
        await found.step()
        assert found.difference == 0

    caplog.set_level(logging.WARNING)
    play(act)


def test_a_job_that_fell_off_the_timeline_is_overdue(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its watermark stands still, so nothing is missing by it; but its next time is long undecided."""
    update = Timeline.update

    def losing(self: Timeline, job: Job, policy: Policy) -> None:
        if job.name == "every" and job.fired == 2:
            self.remove(job.uid)
        else:
            update(self, job, policy)

    async def act(scene: Scene) -> None:
        found = watch(scene)
        await many(scene)
        monkeypatch.setattr(Timeline, "update", losing)
        await scene.seconds(6)
        await found.step()
        assert (found.difference, found.overdue) == (0, 0)
        await scene.seconds(3)
        await found.step()
        assert (found.difference, found.overdue) == (0, 1)
        assert "decision_overdue job=every" in caplog.text

    caplog.set_level(logging.WARNING)
    play(act)


def test_other_editions_are_not_judged() -> None:
    """What the leader reckons with another tz data this node cannot recount."""

    async def act(scene: Scene) -> None:
        found = watch(scene)
        await many(scene)
        scene.names["n2"].machine.editions = ("another", "one")
        await scene.seconds(3)
        await found.step()
        assert found.checked == 0

    play(act)


def test_a_long_span_is_counted_part_by_part() -> None:
    """None takes long, and they add up to the whole."""

    def account(**fields: Any) -> ledger.Account:
        policy = definition.policy_of(definition.canonical({"executor": {"type": "noop"}, **fields}))
        job = Job("a", 1, 1, 1, 1, b"", 1_700_000_000_000, 1_800_000_000_000, 1_700_000_000_000)
        asked = ledger.account(job, policy, {})
        assert asked is not None
        assert asked.schedules == schedules_of(policy, "a")
        return asked

    for fields in (
        {"schedule": "30 2 * * *", "timezone": "Europe/Berlin"},
        {"schedule": "@every 90s"},
        {"schedule": ["@every 1h", "17 * * * *"], "start_at": "2024-01-01T00:00:00Z"},
    ):
        asked = account(**fields)
        parts = list(asked.parts())
        assert len(parts) == asked.parts_count > 5
        whole = ledger.count(
            asked.schedules, asked.after, asked.through, asked.anchor, start_at=asked.start_at, end_at=asked.end_at
        )
        assert sum(parts) == whole > 0


# ---- a broken installation -------------------------------------------------------------------------------------------

CACHES = (zone.zone, schedule._is_hashed, schedule._parse, ledger._zone)


@pytest.fixture
def zone_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The zones' files: the package lists all of them, and has UTC and Pacific/Chatham."""
    real, directory = importlib.resources.files, tmp_path / "zoneinfo"
    for name in ("UTC", "Pacific/Chatham"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(zone.zone_data(name))

    def files(package: str) -> Traversable:
        return directory if package == "tzdata.zoneinfo" else real(package)

    monkeypatch.setattr(importlib.resources, "files", files)
    for cache in CACHES:
        cache.cache_clear()
    yield directory
    for cache in CACHES:
        cache.cache_clear()


@pytest.mark.parametrize("data", [None, b"", b"TZif2" + bytes(60)], ids=["missing", "empty", "damaged"])
def test_a_zone_whose_file_is_not_there_pauses_its_jobs_and_ends_no_watch(zone_files: Path, data: bytes | None) -> None:
    """With a note that says what to mend; other jobs go on."""
    if data is None:
        (zone_files / "Pacific/Chatham").unlink()
    else:
        (zone_files / "Pacific/Chatham").write_bytes(data)

    async def act(scene: Scene) -> None:
        found = watch(scene)
        await scene.put("lost", schedule="* * * * * *", timezone="Pacific/Chatham")
        await scene.put("well", schedule="* * * * * *")
        await found.step()
        assert found.left_out == 1
        await scene.seconds(3)
        await found.step()
        job = scene.leader.machine.state.jobs["lost"]
        assert job.paused
        assert "'Pacific/Chatham'" in job.pause_note
        assert "install the package tzdata anew" in job.pause_note
        assert not scene.leader.machine.state.jobs["well"].paused
        assert (found.difference, found.overdue) == (0, 0)

    play(act)


def test_a_zone_whose_file_vanishes_from_a_running_node_is_not_recounted(zone_files: Path) -> None:
    """The node reckons with what it has read and goes on; the watch leaves the job out."""

    async def act(scene: Scene) -> None:
        found = watch(scene)
        await scene.put("there", schedule="* * * * * *", timezone="Pacific/Chatham")
        await scene.seconds(2)
        (zone_files / "Pacific/Chatham").unlink()
        await found.step()
        assert (found.checked, found.left_out) == (0, 1)
        await scene.seconds(2)
        assert not scene.leader.machine.state.jobs["there"].paused
        assert len(scene.rows("there")) >= 3

    play(act)
