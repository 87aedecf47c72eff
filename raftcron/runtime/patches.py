"""Merge patches (RFC 7396) of jobs."""

from __future__ import annotations

from typing import Any

from raftcron.core import definition
from raftcron.core.model import Job


def merged(job: Job, patch: Any) -> Any:
    """What was written of a job with a merge patch (RFC 7396) taken in."""
    base: dict[str, Any] = definition.written_of(job.definition)
    base["paused"] = job.paused
    if job.owner is not None:
        base["owner"] = job.owner
    if isinstance(patch, dict):
        patch = {key: value for key, value in patch.items() if key not in definition.SERVER_SET}
    return _merge(base, patch)


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result
