"""What is printed can be applied: a job that the cluster would refuse is left out, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raftcron.cli.importers import Imported
from raftcron.core import definition
from raftcron.core.judge import ScheduleJudge
from raftcron.errors import Fault
from raftcron.executors.registry import Registry


def sound(found: Imported, now_ms: int) -> Imported:
    """The jobs that have no fault, as far as can be told without a cluster; the others as warnings."""
    registry = Registry.installed()
    warnings = list(found.warnings)
    jobs = found.jobs
    while True:
        names = {job["name"] for job in jobs}
        kept = []
        for job in jobs:
            faults = [*_faults(job, registry, now_ms), *_missing(job, names)]
            warnings.extend(f"{job['name']}: left out: {fault.pointer}: {fault.message}" for fault in faults)
            if not faults:
                kept.append(job)
        if len(kept) == len(jobs):
            return Imported(kept, warnings)
        jobs = kept  # what was after one that is left out has no parent now


def _faults(job: Mapping[str, Any], registry: Registry, now_ms: int) -> list[Fault]:
    judge = ScheduleJudge(job["name"], now_ms, job, None, {})
    checked = definition.check(job, None, judge, registry.validate)
    return list(dict.fromkeys([*checked.faults, *judge.faults]))


def _missing(job: Mapping[str, Any], names: set[str]) -> list[Fault]:
    return [
        Fault("/after", f"the job {one['job']!r} is not in this import")
        for one in job.get("after", ())
        if one["job"] not in names
    ]
